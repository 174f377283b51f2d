"""No token for a session that the platform has reported as deleted."""

import asyncio
from collections.abc import Callable

import pytest

from reconciler.controller.state.confirmations import RECHECK_S
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.commit_checks import process_of
from reconciler.lab.simulation.event_log import CheckedWrites, EventLog
from reconciler.lab.simulation.fakes import PlatformAnswer
from reconciler.lab.simulation.revocation import (
    BELIEVED_S,
    LISTED_S,
    RESYNC_S,
    REVOKED,
    RevocationChecker,
)
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.naming import Names

NAMES = Names()
US = Caller("reconciler", "token-reconciler/0 (a_b_1)", NAMES.field_manager)
PROCESS = "a_b_1"


def broken(said: Callable[[RevocationChecker], object], after_s: float, *, by: Caller = US) -> bool:
    """Return whether a write this long after the platform's answer about S1 is a violation."""

    async def main() -> bool:
        clock = VirtualClock(asyncio.get_running_loop())
        journal, core = EventLog(clock, ("jwt-",)), Core(clock)
        checker = RevocationChecker(
            CheckedWrites(NAMES, journal, clock, US.user), process_of=process_of
        )
        core.on_commit.append(checker.commit)
        labels = {NAMES.session_id: "S1"}
        core.create(kinds.SECRETS, "default", {"metadata": {"name": "o", "labels": labels}}, by=by)
        checker.deleted("S1", "P1")
        said(checker)
        await asyncio.sleep(after_s)
        body = {"metadata": {"annotations": {"a": "b"}}}
        core.patch(kinds.SECRETS, "default", "o", body, by=by)
        assert journal.violations == []  # no token
        filled = {"stringData": {NAMES.secret_key: "jwt-a"}}
        core.patch(kinds.SECRETS, "default", "o", filled, by=by)
        return [violation.invariant for violation in journal.violations] == [REVOKED]

    return run_virtual(main())


def lookup(session_id: str = "S1", process: str = PROCESS) -> PlatformAnswer:
    """Return the answer "not found" to a look-up."""
    return PlatformAnswer(process, "P1", session_id, frozenset())


def listed(project: str, *session_ids: str) -> PlatformAnswer:
    """Return a list of a project's sessions; of all for ""."""
    return PlatformAnswer(PROCESS, project, None, frozenset(session_ids))


def after(*answers: PlatformAnswer, written_s: float, by: Caller = US) -> bool:
    """Return whether a write this long after the first answer, others 1 s apart, is a violation."""

    def said(checker: RevocationChecker) -> None:
        loop = asyncio.get_running_loop()
        for number, answer in enumerate(answers):
            loop.call_later(float(number), checker.answered, answer)

    return broken(said, written_s, by=by)


def test_one_resync_after_a_look_up_and_two_after_a_list() -> None:
    one_s, two_s = RESYNC_S + BELIEVED_S, 2 * RESYNC_S + BELIEVED_S
    assert not after(lookup(), written_s=one_s - 1)
    assert after(lookup(), written_s=one_s + 1)
    for answer in (listed("P1", "S2"), listed("", "S2")):
        assert not after(answer, written_s=two_s - 1)
        assert after(answer, written_s=two_s + 1)


def test_an_empty_list_counts_beside_a_list_with_a_session() -> None:
    late_s = 3 * RESYNC_S
    empty, other = listed("P1"), listed("P2", "S2")
    assert after(empty, other, written_s=late_s)
    assert after(other, empty, written_s=late_s)
    assert not after(empty, listed("P2"), written_s=10 * late_s)

    def apart(checker: RevocationChecker) -> None:
        checker.answered(other)
        asyncio.get_running_loop().call_later(LISTED_S + 1, checker.answered, empty)

    assert not broken(apart, 10 * late_s)


def test_the_first_word_counts_not_the_last() -> None:
    def said(checker: RevocationChecker) -> None:
        checker.answered(lookup())
        asyncio.get_running_loop().call_later(RESYNC_S, checker.answered, lookup())

    assert broken(said, RESYNC_S + BELIEVED_S + 1)


@pytest.mark.parametrize("failing", ["", "P1"])
def test_an_outage_excuses_until_the_answer_is_repeated(failing: str) -> None:
    def said(checker: RevocationChecker, repeated: bool) -> None:
        checker.answered(lookup())
        loop = asyncio.get_running_loop()
        if repeated:
            loop.call_later(RECHECK_S, checker.answered, lookup())
        loop.call_later(RECHECK_S + 1.0, checker.failed, PROCESS, failing)
        loop.call_later(2 * RESYNC_S, checker.answered, listed("P1"))

    written_s = 2 * RESYNC_S + BELIEVED_S
    assert not broken(lambda checker: said(checker, False), written_s)
    assert broken(lambda checker: said(checker, True), written_s)
    assert broken(lambda checker: said(checker, False), 3 * RESYNC_S + BELIEVED_S)


def test_an_outage_of_another_project_excuses_nothing() -> None:
    def said(checker: RevocationChecker, failing: str) -> None:
        checker.answered(lookup())
        checker.failed(PROCESS, failing)
        checker.answered(listed("P3"))

    written_s = RESYNC_S + BELIEVED_S + 1
    assert broken(lambda checker: said(checker, "P2"), written_s)
    assert broken(lambda checker: said(checker, ""), written_s)  # an answer about P3 has ended it
    assert not broken(lambda checker: said(checker, "P1"), written_s)


def test_outages_at_one_time_count_once() -> None:
    def said(checker: RevocationChecker) -> None:
        checker.answered(lookup())
        for project in ("P1", ""):
            checker.failed(PROCESS, project)
        loop = asyncio.get_running_loop()
        loop.call_later(50.0, checker.answered, listed("P3"))
        loop.call_later(100.0, checker.answered, listed("P1"))

    excused_s = RESYNC_S + BELIEVED_S + 100.0
    assert not broken(said, excused_s - 1)
    assert broken(said, excused_s + 1)


def test_what_is_no_such_word_revokes_nothing() -> None:
    late_s = 10 * RESYNC_S
    assert not broken(lambda checker: None, late_s)
    assert not after(listed(""), written_s=late_s)
    assert not after(listed("P1"), written_s=late_s)
    assert not after(listed("P2", "S2"), written_s=late_s)
    assert not after(lookup("S2"), written_s=late_s)
    assert not after(lookup(process="another"), written_s=late_s)
    other = Caller("tenant", US.agent, NAMES.field_manager)
    assert not after(lookup(), written_s=late_s, by=other)


def test_the_process_is_read_from_the_user_agent() -> None:
    assert process_of("token-reconciler/1 (a_b_1)") == "a_b_1"
    assert process_of("token-reconciler/1 (a_b_1 elector)") == "a_b_1"
    assert process_of("kubectl/1.30") == ""
