"""A wall clock that steps on a signal, for a controller process of a demo.

Call `install` before anything reads the clock. Only `time.time` changes, which is what the product
reads: all processes of a machine share its real clock, and setting that needs root.
"""

import signal
import time
from types import FrameType

FORWARD = signal.SIGUSR1
BACK = signal.SIGUSR2
STEP_S = 3600.0


def install() -> None:
    """Step this process' clock an hour ahead at each `FORWARD`, an hour back at each `BACK`."""
    real = time.time
    off_s = 0.0

    def step(number: int, _frame: FrameType | None) -> None:
        nonlocal off_s
        off_s += STEP_S if number == FORWARD else -STEP_S

    time.time = lambda: real() + off_s
    for number in (FORWARD, BACK):
        signal.signal(number, step)
