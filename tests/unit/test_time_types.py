"""mypy refuses to mix points of the two clocks and durations, with the settings of `make check`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRELUDE = """\
import math
import time
from dataclasses import dataclass

from reconciler.clock import EPOCH, LONG_AGO, NEVER, ClockOffset, EpochTime, Instant, SystemClock

clock = SystemClock()
now_at, began_at = clock.monotonic(), Instant(5)
now_s, expires_s = clock.wall(), EpochTime(900)
apart_s = now_s - now_at


def takes_duration(wait_s: float) -> None: ...


def takes_epoch(at_s: EpochTime) -> None: ...


def takes_instant(at: Instant) -> None: ...


"""

WRONG = {
    "now_s < now_at": "operator",
    "now_at >= now_s": "operator",
    "now_s == now_at": "comparison-overlap",
    "now_at + began_at": "operator",
    "now_s + expires_s": "operator",
    "now_at - now_s": "operator",
    "now_s + apart_s": "operator",
    "2 * now_at": "operator",
    "now_at < 3.0": "operator",
    "now_s == 3.0": "comparison-overlap",
    "takes_epoch(clock.monotonic())": "arg-type",
    "takes_epoch(3.0)": "arg-type",
    "takes_epoch(min(now_at, NEVER))": "arg-type",
    "takes_instant(clock.wall())": "arg-type",
    "takes_instant(now_at - began_at)": "arg-type",
    "takes_instant(math.inf)": "arg-type",
    "takes_duration(now_at)": "arg-type",
    "takes_duration(now_s)": "arg-type",
    "takes_duration(now_s - now_at)": "arg-type",
    "takes_duration(max(0.0, now_at))": "arg-type",
    "takes_duration(NEVER)": "arg-type",
    "time.sleep(now_at)": "arg-type",
    "Instant(now_s)": "arg-type",
    "if began_at: pass": "truthy-bool",
}

RIGHT = """\
@dataclass
class Deadline:
    due_at: Instant = LONG_AGO
    expires_s: EpochTime = NEVER


takes_duration(now_at - began_at)
takes_duration(max(0.0, expires_s - now_s))
takes_duration(apart_s - ClockOffset(3))
takes_duration(float(now_at))
takes_instant(now_at + 5)
takes_instant(5.0 + now_at)
takes_instant(min(now_at, NEVER))
takes_instant(max((began_at, now_at), default=LONG_AGO))
takes_instant(sorted([began_at, now_at])[0])
takes_instant(now_s - apart_s)
takes_epoch(now_at + apart_s)
takes_epoch(now_s - 30)
takes_epoch(NEVER if now_at < began_at else expires_s)
takes_epoch(EPOCH)
later = Deadline().due_at < now_at and expires_s != NEVER and not math.isinf(now_s)
text = f"{now_at:.3f} {now_s:.0f}"
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[int, str]]]:
    """Line and code of each error, by file."""
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "wrong.py").write_text(PRELUDE + "\n".join(WRONG) + "\n")
    (folder / "right.py").write_text(PRELUDE + RIGHT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-pretty",
         "--cache-dir", str(folder / "cache"), str(folder / "wrong.py"), str(folder / "right.py")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors: dict[str, set[tuple[int, str]]] = {"wrong": set(), "right": set()}
    for line in done.stdout.splitlines():
        parts = re.search(r"(wrong|right)\.py:(\d+): error: .*\[([a-z-]+)\]$", line)
        if parts is not None:
            errors[parts[1]].add((int(parts[2]), parts[3]))
    assert "checked 2 source files" in done.stdout, done.stdout + done.stderr
    return errors


@pytest.mark.parametrize("statement", WRONG)
def test_a_mixture_is_refused(statement: str, found: dict[str, set[tuple[int, str]]]) -> None:
    line = PRELUDE.count("\n") + 1 + list(WRONG).index(statement)
    assert (line, WRONG[statement]) in found["wrong"]


def test_points_of_one_clock_and_durations_need_no_cast(
    found: dict[str, set[tuple[int, str]]],
) -> None:
    assert not found["right"]
