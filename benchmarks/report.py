"""Makes the table and the picture of stored results.

    python -m benchmarks.report FILE.json...

writes FILE.md and FILE.png beside each file and prints the table.
"""

import sys

from benchmarks import entry

COMMAND = "benchmarks.command.report:report"

if __name__ == "__main__":
    sys.exit(entry.run(COMMAND, "python -m benchmarks.report"))
