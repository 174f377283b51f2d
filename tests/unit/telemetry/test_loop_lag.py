"""The watchdog of the event loop, on virtual time: a callback that lets time pass blocks it."""

import asyncio
from itertools import count

from prometheus_client.parser import text_string_to_metric_families

from reconciler.lab.simulation.virtual_time import VirtualLoop
from reconciler.telemetry.loop_lag import BUSY_S, IDLE_INTERVAL_S, INTERVAL_S, LoopLag
from reconciler.telemetry.metrics import LOOP_LAG
from reconciler.telemetry.registry import MetricsRegistry


def measured(registry: MetricsRegistry) -> dict[str, float]:
    """Return the histogram: cumulative counts by upper bound, `count` and `sum`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(registry.render().decode()):
        for sample in family.samples:
            if sample.name.startswith(LOOP_LAG.name):
                found[sample.labels.get("le", sample.name.rsplit("_", 1)[1])] = sample.value
    return found


def run(stalls_s: list[float], *, cpu_s: float = BUSY_S) -> dict[str, float]:
    """Return what is measured; the loop uses `cpu_s` between two timers."""
    registry = MetricsRegistry()
    loop = VirtualLoop()

    async def main() -> None:
        used_s = count(cpu_s, cpu_s)
        lag = LoopLag(registry, cpu_s=lambda: next(used_s))
        lag.start()
        for stall_s in stalls_s:
            await asyncio.sleep(10 * INTERVAL_S)
            loop._jumping.now_s += stall_s  # the work of a callback that does not return
        await asyncio.sleep(10 * INTERVAL_S)
        lag.close()
        await asyncio.sleep(10 * INTERVAL_S)

    loop.run_until_complete(main())
    loop.close()
    return measured(registry)


def test_a_loop_that_is_never_blocked_has_no_lag() -> None:
    found = run([])
    assert 8 <= found["count"] <= 10  # none after `close`
    assert found["0.001"] == found["count"]


def test_one_stall_is_one_observation_shorter_by_an_interval_at_most() -> None:
    found = run([0.3, 3.0])
    assert found["count"] - found["0.1"] == 2
    assert found["5.0"] - found["2.5"] == 1
    assert 3.3 - 2 * INTERVAL_S <= found["sum"] <= 3.3


def test_an_idle_loop_is_woken_seldom_and_a_stall_of_it_is_seen() -> None:
    stall_s = 3.0
    found = run([stall_s], cpu_s=BUSY_S / 2)
    assert found["count"] <= 20 * INTERVAL_S / IDLE_INTERVAL_S + 2
    assert stall_s - IDLE_INTERVAL_S <= found["sum"] <= stall_s
