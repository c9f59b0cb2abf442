"""What this process takes of the machine's memory."""

import contextlib
import re
import sys
from pathlib import Path


def peak_memory() -> int | None:
    """The most main memory that this process has held, in bytes; None where nobody says."""
    # Not from getrusage where Linux says it: that begins with what the process has held that
    # started this one.
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return 1024 * int(found[1])
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
