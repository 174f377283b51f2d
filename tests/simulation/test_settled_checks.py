"""What holds at the end of a world: each check fails where its defence is removed."""

import asyncio

import pytest

from reconciler.controller.decide import refresh_plan
from reconciler.informer.store import Store
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation import settled_checks
from reconciler.lab.simulation.conditions import Conditions
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import PodLifetime, Scenario, SessionPlan
from reconciler.lab.simulation.virtual_time import run_virtual
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.tokens import source
from reconciler.tokens.server_clock import ServerClock
from reconciler.tokens.source import OidcSource

TTL_S = 300.0


BACK = Move(Fault.ISSUER_CLOCK_STEP, 100.0, 0.5, 0.746447)
"""The issuer's clock steps back by three lives of a token."""


def found(*moves: Move, cached_s: float = 0.0) -> set[str]:
    """Return the invariants that a world with these moves violates; one of three sessions ends.

    With a cache before the issuer there is no Date header.
    """
    pods = (PodLifetime(0.0, 150.0, 0.9 * TTL_S, finishes=False),)
    stays = (PodLifetime(0.0, 4 * TTL_S, 0.9 * TTL_S, finishes=False),)
    late = (PodLifetime(130.0, 4 * TTL_S, 0.9 * TTL_S, finishes=False),)
    sessions = tuple(
        SessionPlan(name, "Team-a", each)
        for name, each in (("Ends", pods), ("Stays", stays), ("Late", late))
    )
    length_s = 2 * TTL_S
    conditions = Conditions(
        ttl_s=TTL_S, propagation_s=30.0, cached_s=cached_s, sends_date=not cached_s
    )
    outcome = play(
        Scenario(0, 1.0, length_s, ("Team-a",), sessions, moves, 0.0, (1.0, 1.0), conditions)
    )
    return {violation.invariant for violation in outcome.violations}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert found(Move(Fault.KILL_LEADER, 200.0, 20.0, 0.9)) == set()


def test_a_store_with_an_object_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "_apply_deletion", lambda store, stored, last: None)
    assert settled_checks.STORES_ARE_TRUE in found()


def test_an_endpoint_that_stays_down_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CircuitBreaker, "succeeded", lambda breaker, **_: None)
    assert settled_checks.RECOVERED in found(Move(Fault.ISSUER_OUTAGE, 100.0, 60.0, 0.5))


def test_tokens_are_refused_until_a_step_back_is_proven() -> None:
    """A cache of 200 s has three other tokens after the end of this world, one of 50 s before."""
    assert found(BACK, cached_s=200.0) == set()
    assert found(BACK, cached_s=50.0) == set()


def test_a_step_back_that_is_never_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerClock, "are_too_many_refused", lambda clock: False)
    monkeypatch.setattr(ServerClock, "is_proof", lambda clock, run: False)
    monkeypatch.setattr(ServerClock, "is_possible", lambda clock, bounds: True)
    assert settled_checks.RECOVERED in found(BACK, cached_s=50.0)


def test_a_term_without_a_write_of_a_session_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh_plan, "_is_startup_due", lambda *_: False)
    monkeypatch.setattr(refresh_plan, "refresh_at_s", lambda issued_s, expires_s, uid: expires_s)
    assert settled_checks.TERM_WRITES in found(Move(Fault.KILL_LEADER, 330.0, 0.5, 0.9))


def test_a_token_that_was_old_when_it_was_written_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OidcSource, "_serves", lambda *_: True)
    monkeypatch.setattr(source, "STANDBY_FRACTION", 0.5)
    assert settled_checks.FRESH in found()


def test_a_loop_without_a_wait_ends_with_an_error() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0.0)

    with pytest.raises(RuntimeError, match="turns of the loop within a second"):
        run_virtual(spin())
