"""CPU and memory of one process, from /proc: its threads count, its children do not."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used since its start, in steps of 10 ms."""
    return parse_cpu_s(Path(f"/proc/{pid}/stat").read_text(), TICKS_PER_S)


def rss_mb(pid: int) -> float:
    """Return the resident memory, in MB of 2^20 bytes."""
    return parse_mb(Path(f"/proc/{pid}/status").read_text(), "VmRSS")


def peak_mb(pid: int) -> float:
    """Return the largest resident memory so far, in MB of 2^20 bytes."""
    return parse_mb(Path(f"/proc/{pid}/status").read_text(), "VmHWM")


def parse_cpu_s(stat: str, ticks_per_s: int) -> float:
    """Source: proc(5), `stat`, fields 14 and 15; the name in field 2 may hold spaces and brackets.

    >>> parse_cpu_s("7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0", 100)
    2.0
    """
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_s


def parse_mb(status: str, name: str) -> float:
    """Source: proc(5), `status`: values in KiB.

    >>> parse_mb("Name:\\tx\\nVmHWM:\\t    2048 kB\\nVmRSS:\\t    1024 kB\\n", "VmRSS")
    1.0
    """
    [value] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(value) / 1024
