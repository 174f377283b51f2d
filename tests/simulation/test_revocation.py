"""No token for a session that the platform has reported as deleted."""

import asyncio
from collections.abc import Callable

from reconciler.controller.state.confirmations import RECHECK_S
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.commit_checks import process_of
from reconciler.lab.simulation.event_log import CheckedWrites, EventLog
from reconciler.lab.simulation.revocation import BELIEVED_S, RESYNC_S, REVOKED, RevocationChecker
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
        checker.deleted("S1")
        said(checker)
        await asyncio.sleep(after_s)
        body = {"metadata": {"annotations": {"a": "b"}}}
        core.patch(kinds.SECRETS, "default", "o", body, by=by)
        assert journal.violations == []  # no token
        filled = {"stringData": {NAMES.secret_key: "jwt-a"}}
        core.patch(kinds.SECRETS, "default", "o", filled, by=by)
        return [violation.invariant for violation in journal.violations] == [REVOKED]

    return run_virtual(main())


NONE: frozenset[str] = frozenset()
OTHERS = frozenset({"S2"})


def test_one_resync_after_a_look_up_and_two_after_a_list() -> None:
    one_s, two_s = RESYNC_S + BELIEVED_S, 2 * RESYNC_S + BELIEVED_S
    assert not broken(lambda checker: checker.answered(PROCESS, "S1", NONE), one_s - 1)
    assert broken(lambda checker: checker.answered(PROCESS, "S1", NONE), one_s + 1)
    assert not broken(lambda checker: checker.answered(PROCESS, None, OTHERS), two_s - 1)
    assert broken(lambda checker: checker.answered(PROCESS, None, OTHERS), two_s + 1)


def test_the_first_word_counts_not_the_last() -> None:
    def said(checker: RevocationChecker) -> None:
        checker.answered(PROCESS, "S1", NONE)
        loop = asyncio.get_running_loop()
        loop.call_later(RESYNC_S, checker.answered, PROCESS, "S1", NONE)

    assert broken(said, RESYNC_S + BELIEVED_S + 1)


def test_an_outage_excuses_until_the_answer_is_repeated() -> None:
    def said(checker: RevocationChecker, repeated: bool) -> None:
        checker.answered(PROCESS, "S1", NONE)
        loop = asyncio.get_running_loop()
        if repeated:
            loop.call_later(RECHECK_S, checker.answered, PROCESS, "S1", NONE)
        loop.call_later(RECHECK_S + 1.0, checker.failed, PROCESS)
        loop.call_later(2 * RESYNC_S, checker.answered, PROCESS, None, NONE)

    written_s = 2 * RESYNC_S + BELIEVED_S
    assert not broken(lambda checker: said(checker, False), written_s)
    assert broken(lambda checker: said(checker, True), written_s)
    assert broken(lambda checker: said(checker, False), 3 * RESYNC_S + BELIEVED_S)


def test_what_is_no_such_word_revokes_nothing() -> None:
    late_s = 10 * RESYNC_S
    assert not broken(lambda checker: None, late_s)
    assert not broken(lambda checker: checker.answered(PROCESS, None, NONE), late_s)
    assert not broken(lambda checker: checker.answered(PROCESS, "S2", NONE), late_s)
    assert not broken(lambda checker: checker.answered("another", "S1", NONE), late_s)
    other = Caller("tenant", US.agent, NAMES.field_manager)
    assert not broken(lambda checker: checker.answered(PROCESS, "S1", NONE), late_s, by=other)


def test_the_process_is_read_from_the_user_agent() -> None:
    assert process_of("token-reconciler/1 (a_b_1)") == "a_b_1"
    assert process_of("token-reconciler/1 (a_b_1 elector)") == "a_b_1"
    assert process_of("kubectl/1.30") == ""
