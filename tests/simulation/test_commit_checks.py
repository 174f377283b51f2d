"""The budget of writes and requests: what it allows, and what it does not."""

import asyncio
import math
from collections.abc import Callable

import pytest

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import AT_ONCE, Core
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation import commit_checks
from reconciler.lab.simulation.commit_checks import EndpointBudgetChecker, WriteBudgetChecker
from reconciler.lab.simulation.event_log import CheckedWrites, EventLog
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.naming import Names, SessionKey

NAMES = Names()
US = Caller("reconciler", "token-reconciler/0 (a_b_1)", NAMES.field_manager)
AFTER_US = Caller("reconciler", "token-reconciler/0 (a_b_2)", NAMES.field_manager)
OTHER = Caller("platform", "control-plane", "ambient-control-plane")
FORGER = Caller("tenant", "curl", NAMES.field_manager)
KEY = SessionKey("default", "S1")
LABELS = {NAMES.session_id: KEY.session_id}
TTL_S = 900.0
WINDOW_S = commit_checks.WINDOW * TTL_S
MOST_REPAIRS = commit_checks.FIRST_REPAIRS + WINDOW_S / commit_checks.CONTESTED_S


class Bench:
    """A core with one session and the budget's checkers."""

    def __init__(self) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.journal = EventLog(clock, ("jwt-",))
        self.core = Core(clock)
        self.writes = WriteBudgetChecker(
            CheckedWrites(NAMES, self.journal, clock, US.user), life_s=lambda key: TTL_S
        )
        self.requests = EndpointBudgetChecker(self.journal, clock, life_s=lambda: TTL_S)
        for kind in (kinds.SECRETS, kinds.PODS):
            self.core.create(kind, "default", {"metadata": {"name": "o", "labels": LABELS}})
        self.core.on_commit.append(self.writes.commit)
        self._count = 0

    def change(self, by: Caller, kind: kinds.Kind = kinds.SECRETS) -> None:
        self._count += 1
        body = {"metadata": {"annotations": {"n": str(self._count)}}}
        self.core.patch(kind, "default", "o", body, by=by)

    def findings(self) -> list[str]:
        return [violation.what for violation in self.journal.violations]


def findings_of(case: Callable[[Bench], object]) -> list[str]:
    """Return the violations of a history at one instant."""

    async def main() -> list[str]:
        bench = Bench()
        case(bench)
        return bench.findings()

    return run_virtual(main())


@pytest.mark.parametrize(("kind", "what"), [(kinds.SECRETS, "write"), (kinds.PODS, "touch")])
def test_a_fourth_write_that_nothing_asked_for_is_seen(kind: kinds.Kind, what: str) -> None:
    def write(bench: Bench, times: int) -> None:
        for _ in range(times):
            bench.change(US, kind)

    assert findings_of(lambda bench: write(bench, commit_checks.WRITES)) == []
    findings = findings_of(lambda bench: write(bench, commit_checks.WRITES + 1))
    assert findings == [
        f"4 times {what} of default/S1 in 180 s by {US.agent}; without any change"
    ]  # fmt: skip


def test_each_write_allows_its_touch_and_one_repetition() -> None:
    def touched(bench: Bench, touches: int) -> None:
        for _ in range(commit_checks.WRITES):
            bench.change(US)
        for _ in range(touches):
            bench.change(US, kinds.PODS)

    assert findings_of(lambda bench: touched(bench, 2 * commit_checks.WRITES)) == []
    assert len(findings_of(lambda bench: touched(bench, 2 * commit_checks.WRITES + 1))) == 1


def test_a_process_that_finds_a_write_may_touch_for_it_twice() -> None:
    def found(bench: Bench, touches: int, by: Caller = AFTER_US) -> None:
        bench.change(US)
        for _ in range(2):
            bench.change(US, kinds.PODS)
            bench.change(by, kinds.PODS)
        bench.change(by)
        for _ in range(touches - 2):
            bench.change(by, kinds.PODS)

    assert findings_of(lambda bench: found(bench, 4)) == []
    assert len(findings_of(lambda bench: found(bench, 5))) == 1
    assert len(findings_of(lambda bench: found(bench, 3, US))) == 1


def test_writes_that_are_a_window_apart_are_not_counted_together() -> None:
    async def main() -> list[str]:
        bench = Bench()
        for _ in range(10):
            bench.change(US)
            await asyncio.sleep(WINDOW_S / commit_checks.WRITES)
        return bench.findings()

    assert run_virtual(main()) == []


def test_each_change_by_others_allows_one_write_more_up_to_a_rate() -> None:
    most = int(commit_checks.WRITES + MOST_REPAIRS)

    def quarrel(bench: Bench, rounds: int) -> None:
        for _ in range(rounds):
            bench.change(OTHER)
            bench.change(US)

    assert findings_of(lambda bench: quarrel(bench, most)) == []
    assert len(findings_of(lambda bench: quarrel(bench, most + 1))) == 1


def test_each_request_allows_a_write_at_any_rate_and_once() -> None:
    most = 2 * int(commit_checks.WRITES + MOST_REPAIRS)

    def request(bench: Bench, value: str) -> None:
        body = {"metadata": {"annotations": {NAMES.requested_at: value}}}
        bench.core.patch(kinds.SECRETS, "default", "o", body, by=OTHER)

    def honoured(bench: Bench, writes: int) -> None:
        for number in range(most):
            request(bench, f"request {number}")
        for _ in range(writes):
            bench.change(US)

    assert findings_of(lambda bench: honoured(bench, most + commit_checks.WRITES)) == []
    assert len(findings_of(lambda bench: honoured(bench, most + commit_checks.WRITES + 1))) == 1


def test_a_pod_that_changes_allows_nothing_and_a_new_one_does() -> None:
    def restless(bench: Bench) -> None:
        for _ in range(commit_checks.WRITES + 1):
            bench.change(OTHER, kinds.PODS)
            bench.change(US)

    def restarted(bench: Bench) -> None:
        bench.core.delete(kinds.PODS, "default", "o", AT_ONCE, by=OTHER)
        for _ in range(commit_checks.WRITES + 1):
            bench.change(US)

    assert len(findings_of(restless)) == 1
    assert findings_of(restarted) == []


def test_a_tenant_in_our_name_spends_nothing_of_ours_and_each_process_has_its_own() -> None:
    def forge(bench: Bench) -> None:
        for _ in range(20):
            bench.change(FORGER)

    def take_over(bench: Bench) -> None:
        for process in (US, AFTER_US):
            for _ in range(commit_checks.WRITES):
                bench.change(process)

    assert findings_of(forge) == []
    assert findings_of(take_over) == []


def test_what_changes_for_all_allows_each_session_a_write() -> None:
    def rotate(bench: Bench) -> None:
        bench.writes.changed_for_all()
        for _ in range(commit_checks.WRITES + 1):
            bench.change(US)

    assert findings_of(rotate) == []


def test_a_token_without_end_counts_as_one_of_an_hour() -> None:
    assert commit_checks.window_s_of(math.inf) == 0.2 * 3600.0


def test_requests_beyond_an_endpoints_pace_are_seen() -> None:
    def ask(bench: Bench, times: int) -> None:
        for _ in range(times):
            bench.requests.asked("a", "issuer")
            bench.requests.asked("b", "issuer")

    assert findings_of(lambda bench: ask(bench, commit_checks.REQUESTS_A_MINUTE)) == []
    findings = findings_of(lambda bench: ask(bench, commit_checks.REQUESTS_A_MINUTE + 3))
    assert [text.partition(":")[0] for text in findings] == ["a issuer", "b issuer"]


def test_tries_of_one_object_and_look_ups_of_one_session_are_bounded() -> None:
    tries = int(commit_checks.TRIES + WINDOW_S / commit_checks.TRY_S)

    def work(bench: Bench, more: int) -> None:
        for number in range(tries + more):
            bench.requests.tried("a", "secrets default/o")
            bench.requests.tried("a", f"secrets default/{number}")
        for number in range(commit_checks.LOOKUPS_A_MINUTE + more):
            bench.requests.looked_up("a", "S1")
            bench.requests.looked_up("a", f"S1-{number}")

    assert findings_of(lambda bench: work(bench, 0)) == []
    findings = findings_of(lambda bench: work(bench, 1))
    assert [text.partition(":")[0] for text in findings] == [
        "a write secrets default/o", "a look-up S1"
    ]  # fmt: skip


def test_requests_side_by_side_are_bounded() -> None:
    def crowd(bench: Bench) -> None:
        with (
            bench.requests.in_flight("a", "platform", 2),
            bench.requests.in_flight("b", "platform", 2),
        ):
            with bench.requests.in_flight("a", "platform", 2):
                assert bench.findings() == []
                with bench.requests.in_flight("a", "platform", 2):
                    pass
            with bench.requests.in_flight("a", "platform", 2):
                pass

    assert findings_of(crowd) == ["a has 3 requests in flight at platform, at most 2"]
