"""What this process has used of the machine."""

from __future__ import annotations

import sys


def peak_rss_bytes() -> int:
    """The most physical memory that this process has held, in bytes; 0 where it is unknown."""
    try:
        # On Linux getrusage also counts what the parent held before exec; VmHWM does not.
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
