"""`python -m tests.fuzz --minutes 10`: run the targets on changed samples that no test has drawn.

Each process draws from a seed of its own and prints its number of runs. An input that fails is cut
to a smaller one that fails in the same way, and kept in build/fuzz/; after the fault is mended it
belongs into the corpus. `tests.fuzz.by_coverage` chooses inputs by the code that they reach.

Exit codes: 0 nothing failed; 1 otherwise.
"""

import argparse
import hashlib
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from types import FrameType

import structlog

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target

KEPT = Path(__file__).parents[2] / "build" / "fuzz"
HANG_S = 10
"""Longest run of one input: the slowest takes some 50 ms."""

MEMORY_BYTES = 2 * 1024**3
TURN = 50
"""Runs of one target before the next one."""


class HangError(Exception):
    """A run took longer than `HANG_S`."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def failure(target: Target, data: bytes) -> str:
    """Return the class and place of what a run raises, "" for nothing."""
    signal.alarm(HANG_S)
    try:
        target.run(data)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
        return f"{type(error).__name__} at {place}"
    finally:
        signal.alarm(0)
    return ""


def cut(target: Target, data: bytes, wanted: str) -> bytes:
    """Return a part of an input that fails in the same way."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if failure(target, shorter) == wanted:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def fuzz(targets: list[Target], minutes: float, seed: int) -> int:
    """Run for some minutes; return the number of kinds of failures."""
    random, runs, failures = Random(seed), Counter[str](), dict[str, str]()
    end_at = time.monotonic() + 60 * minutes
    samples = {target.name: target.samples for target in targets}
    while time.monotonic() < end_at:
        for target in targets:
            for _ in range(TURN):
                data = mutated(random.choice(samples[target.name]), random)
                runs[target.name] += 1
                found = failure(target, data)
                if found and found not in failures:
                    failures[found] = target.name
                    kept = KEPT / target.name / hashlib.sha256(data).hexdigest()[:12]
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(cut(target, data, found))
                    print(f"{target.name}: {found}; {kept}", flush=True)
    print(*(f"{count:>9,} {name}" for name, count in sorted(runs.items())), sep="\n")
    print(f"{runs.total():>9,} runs from seed {seed}, {len(failures)} kinds of failures")
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help="their names; all by default")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    if unknown := set(asked.targets) - {target.name for target in TARGETS}:
        parser.error(f"no target {', '.join(sorted(unknown))}")
    targets = [target for target in TARGETS if not asked.targets or target.name in asked.targets]
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    signal.signal(signal.SIGALRM, _interrupt)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    return 1 if fuzz(targets, asked.minutes, asked.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
