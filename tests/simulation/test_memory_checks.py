"""The invariant of bounded memory: which containers are counted, and what violates it."""

import asyncio
from collections import deque

import msgspec
import pytest

from reconciler.lab.simulation.conditions import Conditions
from reconciler.lab.simulation.memory_checks import BOUNDED_MEMORY, sizes_of
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import PodLifetime, Scenario, SessionPlan
from reconciler.lab.simulation.world import World
from reconciler.naming import SessionKey
from reconciler.workqueue.queue import WorkQueue


class Owner:
    """Stands for an object of the product."""

    __slots__ = ("limited", "listed", "parts")

    def __init__(self, parts: dict[str, object]) -> None:
        self.parts = parts
        self.limited: deque[int] = deque([1], maxlen=3)
        self.listed = [1, 2, 3]


Owner.__module__ = "reconciler.example"


def test_the_containers_of_parts_are_counted_and_the_largest_of_a_class_remains() -> None:
    small, large = Owner({}), Owner({"a": 1, "b": Owner({"c": {1, 2}})})
    assert sizes_of(Owner({"small": small, "large": large})) == {
        "Owner.parts": 2,
        "Owner.listed": 3,
    }


class Counts(msgspec.Struct):
    by_state: dict[str, int]


Counts.__module__ = "reconciler.example"


def test_the_containers_of_a_struct_are_counted() -> None:
    assert sizes_of(Owner({"counts": Counts({"ready": 1, "waiting": 2})}))["Counts.by_state"] == 2


SESSIONS = 200
STAY_S = 20.0


def world_of_short_sessions() -> Scenario:
    """Return a world in which one session is deleted after another."""
    plans = tuple(
        SessionPlan(
            f"Sess{n:04d}",
            "Team-a",
            (PodLifetime(5.0 * n, 5.0 * n + STAY_S, 40.0, finishes=False),),
            deleted=True,
        )
        for n in range(SESSIONS)
    )
    length_s = 5.0 * SESSIONS + 60.0
    conditions = Conditions(ttl_s=60.0, propagation_s=6.0, workers=2)
    return Scenario(0, 1.0, length_s, ("Team-a",), plans, (), 0.0, (1.0,), conditions)


@pytest.fixture
def deleted_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete a session's Secret after its last pod, as the platform does."""
    end_pod = World.end_pod

    def end(world: World, life: SessionPlan, stay: PodLifetime) -> None:
        end_pod(world, life, stay)
        key = SessionKey(life.project.lower(), life.session_id)
        asyncio.get_running_loop().call_later(60.0, world.delete_secret, key)

    monkeypatch.setattr(World, "end_pod", end)


@pytest.mark.usefixtures("deleted_secrets")
def test_sessions_that_have_ended_leave_nothing() -> None:
    outcome = play(world_of_short_sessions())
    assert outcome.violations == (), "\n".join(outcome.last)
    assert outcome.writes_total >= SESSIONS


@pytest.mark.usefixtures("deleted_secrets")
def test_an_entry_for_each_ended_session_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    done = WorkQueue.done

    def leak(queue: WorkQueue[SessionKey], key: SessionKey, **following: object) -> None:
        vars(queue).setdefault("leak", set()).add(key)
        done(queue, key, **following)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkQueue, "done", leak)
    outcome = play(world_of_short_sessions())
    assert {violation.invariant for violation in outcome.violations} == {BOUNDED_MEMORY}
