"""Execute a program that the kernel kills when the process that started it ends.

Run as a script: `exec_child.py PARENT_PID PROGRAM ARGUMENT...`. A hook between fork and exec
would do the same, but is unsafe in a process with threads, which gRPC starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h. The setting survives exec."""


def main(parent: int, command: list[str]) -> None:
    """Request SIGKILL at the parent's end (Linux), then exec `command`; does not return."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # one could arrive before the program handles it
    if os.getppid() != parent:
        sys.exit("the parent ended before its child was ready")
    os.execv(command[0], command)  # noqa: S606 - this is the whole purpose


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
