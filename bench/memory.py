"""How much memory a process needed."""

from pathlib import Path


def peak_mib() -> float:
    """The largest resident size of this process so far, in MiB; ru_maxrss would begin with its
    parent's.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)
