"""A standby takes over a large fleet: the first write, the lists, and the last session."""

import asyncio
import time
from datetime import datetime

from reconciler.controller.controller import FRESH_S
from tests.bench.figures import Value
from tests.bench.fleet import Fleet, finished_resync
from tests.bench.product import leading
from tests.controller import Controller, running

STORES = ("pods", "secrets")


async def measure(fleet: Fleet) -> list[Value]:
    """Release the Lease of a leader, and return its successor's times from then on."""
    first, second = (
        fleet.environment(
            RECONCILER_REPLICA=f"reconciler-{number}", RECONCILER_POD_UID=f"{number}" * 8
        )
        for number in (1, 2)
    )
    async with leading(fleet, first) as leader, running(second) as standby:
        await standby.wait_for_event("stores_synced", limit_s=fleet.limit_s)
        await standby.wait_for_event("leader_observed", limit_s=fleet.limit_s)
        await asyncio.sleep(FRESH_S + 1.0)  # a leader with newer lists does not list again
        released_s = time.time()
        await leader.terminate(limit_s=fleet.limit_s)
        await standby.wait_for_event("relisted", count=len(STORES), limit_s=fleet.limit_s)
        await finished_resync(standby, fleet)
        relisted = standby.events("relisted")
        if {line["resource"] for line in relisted} != set(STORES):
            raise AssertionError(f"not both stores were listed again: {relisted}")
        relist_s = max(_at_s(standby, "relisted", number) for number in range(len(relisted)))
        found = {
            "takeover_first_write_s": _at_s(standby, "runner_token_refreshed") - released_s,
            "takeover_relist_s": relist_s - _at_s(standby, "lease_acquired"),
            "takeover_resync_s": _at_s(standby, "startup_resync_finished") - released_s,
        }
        await standby.terminate(limit_s=fleet.limit_s)
    return [Value(name, value, fleet.sessions) for name, value in found.items()]


def _at_s(controller: Controller, event: str, number: int = 0) -> float:
    return datetime.fromisoformat(controller.events(event)[number]["timestamp"]).timestamp()
