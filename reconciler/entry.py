"""The command line's first statements, before any import that takes time.

As process 1 of a container a program gets no signal that it has no handler for: a SIGTERM during
the imports would be lost, and the kubelet would wait for its whole grace period.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["run"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))  # nothing was started yet
    open_standard_files()

    from reconciler.cli.main import main as command_line

    command_line()


def open_standard_files() -> None:
    """Open /dev/null in the place of a standard file that was closed before the start.

    Else the first connection would get its number, and what is printed would go there.
    """
    for number, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the kernel gives the lowest number that is free
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
