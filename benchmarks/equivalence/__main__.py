"""The command: every measurement beside its tolerance."""

import sys

from benchmarks import entry

COMMAND = "benchmarks.equivalence.comparison:main"

if __name__ == "__main__":
    sys.exit(entry.run(COMMAND, "python -m benchmarks.equivalence"))
