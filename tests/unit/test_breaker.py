"""Who listens for an endpoint's recovery, and who no longer does."""

import asyncio
from random import Random

from reconciler.errors import (
    Forbidden,
    KubeError,
    NotFound,
    PlatformRefused,
    TransportError,
)
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.net.circuit_breaker import PROBE_S, THRESHOLD, CircuitBreaker


def test_a_listener_that_left_hears_nothing_even_if_another_leaves_meanwhile() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("kube", VirtualClock(asyncio.get_running_loop()), Random(1))
        heard: list[str] = []
        leave_first = breaker.on_recovery(lambda: heard.append("first"))

        def second() -> None:
            heard.append("second")
            leave_second()

        leave_second = breaker.on_recovery(second)
        breaker.on_recovery(lambda: heard.append("third"))
        leave_first()
        for _ in range(2):
            for _ in range(THRESHOLD):
                breaker.failed(TransportError("unreachable"))
            breaker.succeeded()
        assert heard == ["second", "third", "third"]

    run_virtual(main())


def test_a_probe_that_is_refused_closes_nothing_and_is_reported_once() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("kube", VirtualClock(asyncio.get_running_loop()), Random(1))
        answers: list[KubeError] = [TransportError("unreachable")] * 3
        answers += [Forbidden("GET /readyz: 403", status=403)] * 5
        answers += [TransportError("unreachable"), Forbidden("GET /readyz: 403", status=403)]
        asked, refused = 0, []

        async def probe() -> None:
            nonlocal asked
            asked += 1
            raise answers[min(asked, len(answers)) - 1]

        breaker.on_refusal(lambda: refused.append(asked))
        for _ in range(THRESHOLD):
            breaker.failed(TransportError("unreachable"))
        task = asyncio.create_task(breaker.probe_while_down(probe))
        while asked < len(answers):
            assert breaker.is_open
            await asyncio.sleep(PROBE_S)
        assert breaker.is_open
        assert refused == [4, 10]
        assert "403" in breaker.stats().last_error
        task.cancel()

    run_virtual(main())


def test_an_answer_that_will_not_change_closes_it() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("kube", VirtualClock(asyncio.get_running_loop()), Random(1))

        async def probe() -> None:
            raise NotFound("GET /readyz: 404", status=404)

        for _ in range(THRESHOLD):
            breaker.failed(TransportError("unreachable"))
        task = asyncio.create_task(breaker.probe_while_down(probe))
        await asyncio.sleep(2 * PROBE_S)
        assert not breaker.is_open
        task.cancel()

    run_virtual(main())


def test_failures_of_parts_open_nothing_and_the_next_of_the_whole_opens() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("platform", VirtualClock(asyncio.get_running_loop()), Random(1))
        for number in range(10 * THRESHOLD):
            assert breaker.is_suspect == (number >= THRESHOLD)
            breaker.failed(TransportError("unreachable"), part=f"p{number % 4}")
        assert breaker.stats().condition == "ok"
        breaker.failed(TransportError("unreachable"))
        assert breaker.is_open
        assert not breaker.is_suspect

    run_virtual(main())


def test_a_success_of_a_part_ends_suspicion_and_no_outage() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("platform", VirtualClock(asyncio.get_running_loop()), Random(1))
        woken: list[str] = []
        breaker.on_recovery(lambda: woken.append("woken"))
        for _ in range(THRESHOLD):
            breaker.failed(TransportError("unreachable"), part="a")
        breaker.succeeded(part="b")
        assert not breaker.is_suspect
        for _ in range(THRESHOLD):
            breaker.failed(TransportError("unreachable"))
        breaker.succeeded(part="b")
        assert breaker.is_open
        assert woken == []
        breaker.succeeded()
        assert woken == ["woken"]

    run_virtual(main())


def test_suspicion_costs_one_probe_whose_answer_wakes_no_session() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("platform", VirtualClock(asyncio.get_running_loop()), Random(1))
        asked, woken = 0, []

        async def probe() -> None:
            nonlocal asked
            asked += 1

        breaker.on_recovery(lambda: woken.append("woken"))
        task = asyncio.create_task(breaker.probe_while_down(probe))
        for _ in range(THRESHOLD):
            breaker.failed(TransportError("unreachable"), part="a")
        await asyncio.sleep(10 * PROBE_S)
        assert (asked, breaker.is_suspect, woken) == (1, False, [])
        task.cancel()

    run_virtual(main())


def test_a_refusal_of_one_kind_of_request_ends_by_a_success_of_that_kind() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("platform", VirtualClock(asyncio.get_running_loop()), Random(1))
        conditions: list[str] = []
        woken: list[str] = []
        breaker.on_condition(lambda stats: conditions.append(stats.condition))
        breaker.on_recovery(lambda: woken.append("woken"))
        error = PlatformRefused("list projects: the platform answered 403", status=403)
        for _ in range(5):
            breaker.refused(error, kind="projects")
            breaker.succeeded(kind="sessions")
            assert breaker.refuses
        assert (conditions, woken) == (["refused"], [])

        breaker.refused(error, kind="session")
        breaker.succeeded(kind="session")
        assert (breaker.refuses, woken) == (True, ["woken"])
        breaker.succeeded(kind="projects")
        assert (breaker.refuses, conditions) == (False, ["refused", "ok"])
        assert len(woken) == 2

    run_virtual(main())
