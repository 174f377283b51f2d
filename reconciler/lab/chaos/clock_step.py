"""A wall clock that steps on a signal, for a process of the box: `obey` before anything reads it.

Only `time.time` is moved, which is what the product reads: processes of one machine share its real
clock, and nobody may set that.
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
