"""Failures and slow runs are always kept; of the rest the share that was asked for, by number."""

from random import Random

import pytest

from reconciler.telemetry.otlp_settings import SLOW_S, Sampler
from reconciler.telemetry.trace import Trace, Tracer
from tests.support import ManualClock


def trace(seconds: float = 0.01, *, failed: bool = False, p95_s: float = 0.0) -> Trace:
    clock = ManualClock()
    made = Tracer(clock, Random(3)).begin("reconcile")
    with made:
        clock.advance(seconds)
    made.failed, made.p95_s = failed, p95_s
    return made


@pytest.mark.parametrize(
    ("kept", "of"),
    [
        (False, trace()),
        (True, trace(failed=True)),
        (True, trace(2 * SLOW_S)),
        (False, trace(2 * SLOW_S, p95_s=3 * SLOW_S)),
        (True, trace(4 * SLOW_S, p95_s=3 * SLOW_S)),
        (False, trace(0.1, p95_s=0.05)),
    ],
    ids=["ordinary", "failed", "slow", "all are slow", "slowest of all", "slower, not slow"],
)
def test_failures_and_slow_runs_are_kept(kept: bool, of: Trace) -> None:
    assert Sampler(0.0).keeps(of) is kept


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_ordinary_traces_is_the_ratio(ratio: float) -> None:
    tracer, sampler = Tracer(ManualClock(), Random(5)), Sampler(ratio)
    kept = sum(sampler.keeps(tracer.begin("reconcile")) for _ in range(4000))
    assert kept / 4000 == pytest.approx(ratio, abs=0.02)
    if ratio in (0.0, 1.0):
        assert kept == 4000 * ratio
