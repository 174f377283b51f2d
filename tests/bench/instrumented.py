"""`python -m tests.bench.instrumented WHAT OUT run`: the product, observed by a thread of its own.

WHAT is `profile` or `memory`. SIGUSR1 begins, SIGUSR2 ends and writes one JSON object to OUT:

- profile: `seconds`, CPU of all threads; `components`, `innermost` and `functions`, shares of it:
  by the innermost frame in `reconciler/`, by the innermost frame of all, and by each function of
  `reconciler/` on the stack. C code counts for the function that runs next in that thread.
- memory: `components`, bytes by the innermost frame in `reconciler/` that allocated them.
"""

import gc
import importlib
import json
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType

from tests.bench.components import component, is_product

BEGIN, END = signal.SIGUSR1, signal.SIGUSR2
SAMPLE_S = 0.002
"""CPU of the process between samples. The timer's signal interrupts what uses the CPU; a sampling
thread would run only where another releases the interpreter, and see system calls alone."""
COMMON = 0.9
FRAMES = 12
"""Frames that tracemalloc keeps of each allocation; with more, it needs more memory than we do."""


def main() -> None:
    what, out = sys.argv[1], Path(sys.argv[2])
    # Every thread inherits the mask: only the observer takes these signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {BEGIN, END})
    if what == "profile":
        profile = Profile()
        signal.signal(signal.SIGPROF, profile.sample)
        observe = partial(_profile, out, profile)
    else:
        # First, so that what modules hold is not traced.
        importlib.import_module("reconciler.app.main")
        tracemalloc.start(FRAMES)
        observe = partial(_memory, out)
    threading.Thread(target=observe, name="observer", daemon=True).start()
    sys.argv = ["reconciler", *sys.argv[3:]]
    from reconciler.entry import main as product

    product()


def _write(out: Path, found: dict[str, object]) -> None:
    """Write in one step: the reader waits for the file."""
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(out)


def _memory(out: Path) -> None:
    signal.sigwait({BEGIN})
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()  # what follows allocates for each frame
    components: Counter[str] = Counter()
    for trace in snapshot.traces:
        # The innermost frame is last.
        files = (frame.filename for frame in reversed(trace.traceback))
        components[component(files)] += trace.size
    _write(out, {"components": components})


class Profile:
    """Attributes CPU to frames: of each thread, what it used since the last sample."""

    def __init__(self) -> None:
        self._clocks: dict[int, int] = {}
        self._components: Counter[str] = Counter()
        self._functions: Counter[str] = Counter()
        self._innermost: Counter[str] = Counter()
        self._taken_ns = 0

    def sample(self, _: int, interrupted: FrameType | None) -> None:
        """Handle a SIGPROF, in the main thread."""
        frames = sys._current_frames()
        if interrupted is not None:
            frames[threading.main_thread().ident or 0] = interrupted
        for thread, frame in frames.items():
            used_ns = self._used_ns(thread)
            if used_ns:
                self._add(list(_stack(frame)), used_ns)

    def _add(self, stack: list[FrameType], used_ns: int) -> None:
        self._taken_ns += used_ns
        self._components[component(frame.f_code.co_filename for frame in stack)] += used_ns
        self._innermost[_name(stack[0])] += used_ns
        for name in {_name(frame) for frame in stack if is_product(frame.f_code.co_filename)}:
            self._functions[name] += used_ns

    def _used_ns(self, thread: int) -> int:
        """Return the CPU of a thread since the last call; 0 for the first one."""
        try:
            now_ns = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
        except OSError:  # it has ended
            return 0
        used_ns = now_ns - self._clocks.get(thread, now_ns)
        self._clocks[thread] = now_ns
        return used_ns

    def found(self) -> dict[str, object]:
        """Return the shares. Functions on nearly every stack say nothing and are left out."""
        components, innermost, functions = (
            {name: used_ns / self._taken_ns for name, used_ns in counter.most_common()}
            for counter in (self._components, self._innermost, self._functions)
        )
        rare = {name: share for name, share in functions.items() if share < COMMON}
        return {
            "seconds": self._taken_ns / 1e9,
            "components": components,
            "innermost": innermost,
            "functions": rare,
        }


def _profile(out: Path, profile: Profile) -> None:
    signal.sigwait({BEGIN})
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
    signal.sigwait({END})
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    _write(out, profile.found())


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name(frame: FrameType) -> str:
    """Return the function's place: file in its package, and qualified name."""
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_code.co_qualname}"


if __name__ == "__main__":
    main()
