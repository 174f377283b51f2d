"""Who listens for an endpoint's recovery, and who no longer does."""

import asyncio
from random import Random

from reconciler.breaker import THRESHOLD, Breaker
from reconciler.errors import TransportError
from reconciler.lab.virtual_time import VirtualClock, run_virtual


def test_a_listener_that_left_hears_nothing_even_if_another_leaves_meanwhile() -> None:
    async def main() -> None:
        breaker = Breaker("kube", VirtualClock(asyncio.get_running_loop()), Random(1))
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
                breaker.failed(TransportError("away"))
            breaker.succeeded()
        assert heard == ["second", "third", "third"]

    run_virtual(main())
