"""One row: what is left, what comes next and why, what was tried."""

from typing import Any

import pytest

from reconciler import errors
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.reconcile.run import Outcome
from reconciler.controller.status.history import RunRecord
from reconciler.statuspage.session_row import SessionRow, row_of
from reconciler.statuspage.texts import describe_error_class
from tests.exhibit import IDENTITY, NOW_S, row


def line(
    remaining_s: float | None = 600.0,
    past: tuple[RunRecord, ...] = (),
    events: tuple[PodEvent, ...] = (),
    **changes: Any,
) -> SessionRow:
    return row_of(
        row(7, remaining_s, **changes), past, events,
        identity=IDENTITY, now_s=NOW_S, wall_s=NOW_S - 100, scale_s=900.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("remaining_s", "life", "state", "share", "severity"),
    [
        (600.0, "10m", "ok", 66.7, "good"),
        (5.0, "5s", "expiring", 0.6, "bad"),
        (-30.0, "-30s", "expired", 0.0, "bad"),
        (None, "-", "unmanaged", None, "warn"),
        (2000.0, "33m", "ok", 100.0, "good"),
    ],
)
def test_what_is_left(
    remaining_s: float | None, life: str, state: str, share: float | None, severity: str
) -> None:
    shown = line(remaining_s)

    assert (shown.life, shown.state, shown.share, shown.severity) == (life, state, share, severity)


def test_a_token_without_an_end_fills_its_bar() -> None:
    shown = line(float("inf"), state=TokenState.NO_EXPIRY)

    assert (shown.life, shown.share, shown.severity) == ("no expiry", 100.0, "good")
    assert ("Token expires", "never") in shown.details


@pytest.mark.parametrize(
    ("changes", "upcoming", "reason"),
    [
        ({"due_s": NOW_S + 130}, "in 2m10s", "scheduled refresh"),
        ({"due_s": NOW_S + 0.5}, "now", "scheduled refresh"),
        ({"due_s": NOW_S - 4}, "due 4s ago", "scheduled refresh"),
        ({"due_s": None}, "not scheduled", ""),
        ({"stage": "running", "reason": "pod"}, "now", "its pod changed"),
        ({"failures": 1, "due_s": NOW_S + 3}, "in 3s", "failed once; scheduled refresh"),
        (
            {"failures": 4, "due_s": NOW_S + 3},
            "in 3s",
            "failed 4 times in a row; scheduled refresh",
        ),
        ({"blocked_on": "issuer"}, "waiting", "the issuer gives no token; scheduled refresh"),
        ({"block_reason": "paused"}, "blocked", "paused by annotation"),
    ],
)
def test_what_comes_next_and_why(changes: dict[str, Any], upcoming: str, reason: str) -> None:
    shown = line(**changes)

    assert shown.next == upcoming
    assert shown.reason.startswith(reason)


def test_the_bar_marks_the_next_refresh_unless_it_is_obstructed() -> None:
    assert line(due_s=NOW_S + 150).due == 50.0
    for changes in (
        {"block_reason": "paused"},
        {"blocked_on": "issuer"},
        {"failures": 1},
        {"due_s": None},
    ):
        assert line(**changes).due is None


@pytest.mark.parametrize(
    ("outcome", "reason", "error", "severity", "words"),
    [
        ("refreshed", "expired", "", "good", "refreshed: its token has expired"),
        ("failed", "scheduled", "IssuerUnavailable", "bad", "failed: the issuer is unreachable"),
        ("blocked", "paused", "", "neutral", "blocked: paused by annotation"),
        ("no_better_token", "", "", "warn", "no better token available"),
        (
            "conflict_backoff",
            "foreign_writer",
            "",
            "warn",
            "backed off from another writer: another writer",
        ),
    ],
)
def test_what_was_tried(
    outcome: Outcome, reason: str, error: str, severity: str, words: str
) -> None:
    [mark] = line(past=(RunRecord(NOW_S - 112, outcome, reason, error),)).runs

    assert (mark.severity, mark.when, mark.ended) == (severity, "2025-12-31T23:58:08Z", "12s ago")
    assert mark.words.startswith(words)


def test_every_error_that_an_attempt_may_meet_has_words() -> None:
    def leaves(kind: type[Exception]) -> list[type[Exception]]:
        below = kind.__subclasses__()
        return [each for sub in below for each in leaves(sub)] if below else [kind]

    met = {
        each.__name__ for each in leaves(errors.RemoteError) if each.__module__ == errors.__name__
    }

    assert {name for name in met if describe_error_class(name) == name} <= {
        "Gone",
        "ResourceVersionTooLarge",
    }
    assert describe_error_class("ZeroDivisionError") == "ZeroDivisionError"


def test_foreign_text_is_short_printable_and_on_one_line() -> None:
    shown = line(refreshed_by="x" * 5000, session_id="a\u202eb\x1b[2J\nc")

    assert max(len(value) for _, value in shown.details) <= 120
    assert shown.session_id == "a\ufffdb\ufffd[2J c"


def test_a_run_links_to_its_trace_only_if_that_was_exported() -> None:
    kept = RunRecord(NOW_S, "failed", "scheduled", "Conflict", 0xAF7, True)
    [seen, logged, unknown] = line(
        past=(kept, kept._replace(exported=False), RunRecord(*kept[:4]))
    ).runs

    assert seen.trace_id == "00000000000000000000000000000af7"
    assert seen.trace_url == f"https://jaeger.example/trace/{seen.trace_id}"
    assert (logged.trace_id, logged.trace_url) == (seen.trace_id, "")
    assert (unknown.trace_id, unknown.trace_url) == ("", "")


def test_an_event_has_its_reason_its_message_and_its_count() -> None:
    failed = PodEvent("Warning", "RefreshFailed", "no answer\x1b[2J", 4, NOW_S - 130)
    [mark, healthy] = line(events=(failed, PodEvent("Normal", "X", "y", 1, NOW_S - 130))).events

    assert (mark.severity, mark.ended) == ("warn", "30s ago")
    assert mark.words.startswith("RefreshFailed: no answer")
    assert "\x1b" not in mark.words
    assert mark.words.endswith(" (4 times)")
    assert (healthy.severity, healthy.words) == ("good", "X: y")


def test_the_commands_name_the_session_and_hold_no_word_with_a_meaning_to_a_shell() -> None:
    assert line().commands == (
        "reconciler explain team-0/session-2ab00007-runner",
        "kubectl -n team-0 describe pod session-2ab00007-runner",
        "reconciler refresh team-0/session-2ab00007-runner",
        "kubectl -n ambient-code logs replica-0 | grep 2Ab00007",
    )
    for wrong in ("$(reboot)", "a b", "-n", "x;y", "`id`", ""):
        assert line(pod=wrong, session_id=wrong).commands == ()
