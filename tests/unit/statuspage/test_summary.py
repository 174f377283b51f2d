"""The fleet in one sentence, the worst first, and the exposure as an estimate."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.reconcile.bulkhead_shell import SlowTargets
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.status.exposure import Exposed
from reconciler.controller.status.snapshot import LeaseStatus, SessionStatus
from reconciler.informer.reflector import ReflectorStats
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage import summary
from reconciler.statuspage.components import Component, components, role
from reconciler.statuspage.summary import details, exposure, filters, headline, stats
from tests.exhibit import queue, row, survey, watch

RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks.md"

STANDBY = LeaseStatus("a/1", False, "replica-1_uid_nonce", 1, 0)


LAPSED = replace(STANDBY, lapsed=True)


@pytest.mark.parametrize(
    ("rows", "more", "severity", "sentence"),
    [
        ([], {}, "good", "There are no sessions."),
        ([row(1)], {}, "good", "The session holds a valid token."),
        ([row(1), row(2)], {}, "good", "All 2 sessions hold a valid token."),
        (
            [row(1), row(2, block_reason="paused")],
            {},
            "good",
            "The session holds a valid token; 1 session blocked.",
        ),
        (
            [row(1, -1.0, block_reason="paused")],
            {},
            "good",
            "No session is to be refreshed; 1",
        ),
        (
            [row(1, -1.0, block_reason="not_confirmed")],
            {},
            "warn",
            "No session is refreshed; nothing is written for 1 session.",
        ),
        (
            [row(1), row(2, block_reason="secret_name_taken"), row(3, block_reason="paused")],
            {},
            "warn",
            "Every refreshed token is valid; nothing is written for 1 session.",
        ),
        (
            [row(1), row(2, block_reason="not_confirmed")],
            {"lease": STANDBY},
            "good",
            "The session holds a valid token; 1 session blocked.",
        ),
        ([row(1), row(2, -1.0)], {}, "bad", "1 session holds an expired token."),
        ([row(1, 5.0), row(2, -1.0), row(3, -1.0)], {}, "bad", "2 sessions hold an expired token."),
        ([row(1, None, state=TokenState.NO_SECRET)], {}, "bad", "1 session has no token to read."),
        ([row(1, 5.0)], {"down": "issuer"}, "bad", "1 session holds a token that may expire"),
        (
            [row(1)],
            {"down": "issuer"},
            "warn",
            "Every token is valid, but the issuer is unreachable.",
        ),
        ([row(1, failures=2)], {}, "warn", "Every token is valid; 1 session failed"),
        ([row(1, None)], {}, "warn", "1 session holds a token with an unknown expiry."),
        (
            [row(1, None, block_reason="not_confirmed")],
            {"down": "platform"},
            "warn",
            "No session is refreshed, but the platform is unreachable.",
        ),
        (
            [row(1, None, failures=1)],
            {"queue": queue(without_right=1)},
            "warn",
            "No token is known to have expired; 1 session waits for a missing right.",
        ),
        (
            [row(1, 300.0)],
            {"down": "issuer", "standby_s": None},
            "bad",
            "Every token is valid, but the issuer is unreachable.",
        ),
        (
            [row(1, 300.0)],
            {"standby_s": None},
            "bad",
            "Every token is valid, but the fleet survives for only 4m59s without the issuer.",
        ),
        (
            [row(1), row(2, state=TokenState.OVERDUE)],
            {},
            "warn",
            "1 session has missed the deadline of a refresh.",
        ),
        (
            [row(1)],
            {"queue": queue(overdue_s=16.0)},
            "warn",
            "A due session has missed its deadline by 16s: no worker took it.",
        ),
        (
            [row(1)],
            {"lease": LeaseStatus("a/1", False, "", 1, 0)},
            "bad",
            "No replica leads: no token is refreshed.",
        ),
        (
            [row(1)],
            {"lease": LAPSED},
            "bad",
            "No replica leads: no token is refreshed.",
        ),
        (
            [row(1)],
            {"lease": LAPSED, "down": "kube"},
            "warn",
            "Every token is valid, but the API server is unreachable.",
        ),
        ([row(1, failures=2)], {"lease": STANDBY}, "good", "The session holds a valid token."),
    ],
)
def test_the_worst_is_said(
    rows: list[SessionStatus], more: Any, severity: str, sentence: str
) -> None:
    found = headline(survey(rows, **more), "")

    assert found[0] == severity
    assert found[1].startswith(sentence)


def test_an_issuer_that_refuses_us_never_looks_healthy() -> None:
    issuer = BreakerStats("issuer", False, 0.0, 0, "answered 401", refuses=True, refused_for_s=9.0)
    shown = survey([row(1, 300.0)], breakers=(issuer,))

    assert headline(shown, "")[:2] == (
        "warn",
        "Every token is valid, but the issuer rejects our credentials.",
    )
    assert stats(shown)[0].severity == "warn"
    [part] = [part for part in components(shown, "replica-0") if part.name == "Issuer"]
    assert (part.value, part.note, part.severity) == ("rejects us for 9s", "answered 401", "bad")


def test_a_request_that_the_issuer_refuses_is_not_called_credentials() -> None:
    issuer = BreakerStats(
        "issuer", False, 0.0, 0, "answered 400 invalid_scope", refuses=True, refused_for_s=9.0,
        last_reason="invalid_scope", last_status=400,
    )  # fmt: skip
    shown = survey([row(1, 300.0)], breakers=(issuer,))

    assert headline(shown, "")[:2] == (
        "warn",
        "Every token is valid, but the issuer rejects our request.",
    )


def part_of(name: str, **changes: Any) -> Component:
    [found] = [part for part in components(survey([row(1)], **changes), "r") if part.name == name]
    return found


def test_an_endpoint_that_fails_and_was_never_heard_otherwise_does_not_answer() -> None:
    issuer = BreakerStats("issuer", False, 0.0, 0, "no answer in 5 s", failures=1)

    found = part_of("Issuer", breakers=(issuer,))

    assert (found.value, found.note) == ("failing", "1 failure in a row: no answer in 5 s")
    assert found.severity == "warn"


def test_an_api_server_that_refuses_a_right_is_not_healthy() -> None:
    worker = ReconcileStats(
        {}, {}, last_forbidden="PATCH /x: the API server answered 403 Forbidden"
    )

    found = part_of("API server", queue=queue(without_right=2), reconciler=worker)

    assert (found.value, found.severity) == ("denies 2 sessions", "bad")
    assert found.note == "a right is missing: PATCH /x: the API server answered 403 Forbidden"


def test_a_list_that_is_refused_is_named_with_its_error() -> None:
    refused = replace(watch("secrets", namespace="a", synced=False), is_forbidden=True)
    refused = replace(refused, protocol=replace(refused.protocol, last_error="GET /s: 403"))

    assert part_of("Watches", watches=(refused,)).note == "secrets in a; GET /s: 403"
    server = part_of("API server", watches=(refused,))
    assert (server.value, server.note) == ("denies lists", "a right is missing: GET /s: 403")


def test_watches_that_fail_again_and_again_are_named_with_the_error() -> None:
    def failed(times: int) -> ReflectorStats:
        found = watch("secrets", namespace="a", silent_s=1.0)
        rejected = replace(found.protocol, failures=times, last_error="GET /s: 401 Unauthorized")
        return replace(found, protocol=rejected)

    part = part_of("Watches", watches=(watch("pods"), failed(2)))
    assert (part.value, part.severity) == ("failing", "warn")
    assert part.note == "secrets in a; GET /s: 401 Unauthorized"
    assert part_of("Watches", watches=(failed(1),)).severity == "good"


def test_slow_targets_are_named_with_what_waits_for_them() -> None:
    names = ("(platform)", "team-a", "team-b", "team-c", "team-d", "team-e")

    found = part_of("Slow", slow=SlowTargets(names, 7))

    assert (found.value, found.severity) == ("6 targets", "warn")
    assert found.note == (
        "(platform), team-a, team-b, team-c, team-d and 1 more; 7 due sessions waiting for"
        " fewer requests there"
    )
    assert "Slow" not in {part.name for part in components(survey(), "r")}


def test_the_platforms_line_says_how_many_requests_it_gets() -> None:
    assert part_of("Platform", platform_allowed=1).note.startswith(
        "1 running session in its list, at most 1 request at a time"
    )


def test_a_variable_without_effect_is_the_first_part() -> None:
    found = components(survey(), "r", ("RECONCILER_X is no setting",))[0]

    assert found == Component("Settings", "unknown variables", "RECONCILER_X is no setting", "warn")


def test_what_is_not_ready_says_so_first() -> None:
    assert headline(survey(), "waiting for pods")[:2] == ("warn", "Not ready: waiting for pods.")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0"), (0.01, "0.1"), (4.26, "4.3"), (12_345.6, "12,346")]
)
def test_exposure_is_an_estimate_and_never_looks_like_none(seconds: float, shown: str) -> None:
    figure = exposure(survey(exposure_s=seconds))

    assert (figure.name, figure.value) == ("Estimated exposure", shown)
    assert "measured at the runners" in figure.note
    assert figure.severity == ("bad" if seconds else "good")


def test_how_long_the_fleet_lasts_and_what_expires_next() -> None:
    survival, upcoming, sessions = stats(survey([row(1, 300.0), row(2, 500.0, failures=1)]))

    assert (survival.value, survival.severity) == ("14m", "good")
    assert (upcoming.value, upcoming.note) == ("in 5m", "team-1/2Ab00001")
    assert upcoming.link == "?q=team-1%2F2Ab00001&open=team-1%2F2Ab00001"
    assert (sessions.value, sessions.note) == ("2", "1 failing, 0 blocked")


@pytest.mark.parametrize(
    ("rows", "more", "values"),
    [
        ([], {}, ["-", "-"]),
        ([row(1, float("inf"))], {}, ["unlimited", "-"]),
        ([row(1, -5.0)], {"standby_s": None}, ["0s", "expired"]),
        ([row(1, 65.0)], {"standby_s": None, "down": "issuer"}, ["64s", "in 65s"]),
    ],
)
def test_figures_of_odd_fleets(rows: list[SessionStatus], more: Any, values: list[str]) -> None:
    assert [each.value for each in stats(survey(rows, **more))[:2]] == values


def test_only_ways_to_narrow_that_match_a_session_are_offered() -> None:
    found = filters(
        survey([row(1), row(2, -1.0), row(3, block_reason="paused"), row(4, failures=1)])
    )

    assert [(each.name, each.count) for each in found] == [
        ("all", 4), ("expired", 1), ("failing", 1), ("blocked", 1), ("ok", 2),
    ]  # fmt: skip


def part(name: str, **changes: Any) -> Component:
    found = components(survey([row(1)], **changes), "replica-0")
    return next(each for each in found if each.name == name)


def test_all_is_well_with_what_it_depends_on() -> None:
    found = components(survey([row(1)]), "replica-0")

    assert {each.severity for each in found} == {"good"}
    assert [each.name for each in found] == [
        "Leader", "Watches", "API server", "Platform", "Issuer", "Queue", "Startup",
    ]  # fmt: skip
    assert part("Leader").note == "this replica; 3 leader changes"
    assert part("Issuer").note == "standby token: 14m left; clock +0.2 ±0.5 s, 1 outage"


@pytest.mark.parametrize(
    ("name", "changes", "value", "severity"),
    [
        ("Leader", {"lease": LeaseStatus("a/1", False, "b_uid_nonce", 1, 0)}, "b", "good"),
        ("Leader", {"lease": LeaseStatus("a/1", False, "b/0-nonce", 1, 0)}, "b", "good"),
        ("Leader", {"lease": LeaseStatus("a/1", False, "", 1, 0)}, "none", "bad"),
        ("Leader", {"lease": LAPSED}, "none", "bad"),
        ("Watches", {"watches": (watch("pods", synced=False),)}, "not synced", "bad"),
        ("Watches", {"watches": (watch("pods", silent_s=200),)}, "silent", "warn"),
        ("Issuer", {"down": "issuer"}, "unreachable for 12s", "bad"),
        ("API server", {"down": "kube"}, "unreachable for 12s", "bad"),
        ("Queue", {"queue": queue(state="paused")}, "paused", "neutral"),
        ("Queue", {"queue": queue(oldest_s=9.0)}, "0 due", "warn"),
    ],
)
def test_what_is_wrong_is_shown_in_its_line(
    name: str, changes: dict[str, Any], value: str, severity: str
) -> None:
    found = part(name, **changes)

    assert (found.value, found.severity) == (value, severity)


def test_a_standby_says_that_it_is_standby() -> None:
    lease = LeaseStatus("a/1", False, "b_uid_nonce", 1, 2)

    note = part("Leader", lease=lease).note

    assert role(survey(lease=lease)) == "standby"
    assert note == "this replica is standby; 1 leader change, 2 writes blocked"


def test_the_exposure_says_when_it_last_grew_and_for_which_sessions() -> None:
    shown = survey([row(1)])
    assert "Last increase" not in exposure(shown).note

    exposed = tuple(
        Exposed(SessionKey("team", name), seconds, shown.now_s - ago_s)
        for name, seconds, ago_s in (("late", 1.5, 30), ("early", 0.01, 3600))
    )
    note = exposure(replace(shown, exposed=exposed)).note

    assert "Last increase 30s ago" in note
    assert "team/late (1.5 s), team/early (0.1 s)" in note


def test_a_fault_says_who_missed_what_who_waits_and_when_the_first_token_expires() -> None:
    late = [row(n, 13.0 + n, state=TokenState.OVERDUE) for n in range(3)]
    shown = survey(
        [*late, row(9, 5.0)],
        down="issuer",
        standby_s=31.0,
        queue=queue(for_issuer=4, without_right=1),
    )

    assert details(shown, headline(shown, "")[1]) == (
        "The issuer is unreachable.",
        "3 sessions have missed the deadline of a refresh.",
        "Waiting: 4 sessions for the issuer and 1 session for a missing right.",
        "The next token expires at 00:00:05 UTC, in 5s: team-2/2Ab00009.",
        "With the standby token every pod can have a valid one until 00:00:30 UTC.",
    )


def test_what_is_blocked_has_its_reasons_and_a_section_of_the_runbook() -> None:
    reasons = ("paused", "not_confirmed", "not_confirmed", "pod_leaving")
    shown = survey([row(n, block_reason=reason) for n, reason in enumerate(reasons)])

    found = headline(shown, "")

    assert details(shown, found.sentence) == (
        "Blocked: 2 not confirmed by the platform, 1 paused by annotation and 1 whose pod is being"
        " deleted.",
    )
    headings = re.findall(r"^#+ (.+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert found.alert in {heading.lower().replace(" ", "-") for heading in headings}
    assert details(replace(shown, lease=STANDBY), "") == ()
    assert summary.BLOCKED.keys() == set(BlockReason)


def test_a_healthy_fleet_has_no_details_and_no_sentence_is_said_twice() -> None:
    assert details(survey([row(1)]), "") == ()
    late = survey([row(1, state=TokenState.OVERDUE)])
    assert details(late, headline(late, "")[1]) == ()


def test_the_cause_is_said_where_the_headline_has_what_it_did() -> None:
    refusing = BreakerStats("platform", False, 0.0, 0, "answered 401", refuses=True)
    shown = survey([row(1, -1.0), row(2)], down="kube")
    shown = replace(shown, breakers=(*shown.breakers[:1], refusing))

    found = headline(shown, "")

    assert found.sentence == "1 session holds an expired token."
    assert details(shown, found.sentence)[:2] == (
        "The API server is unreachable.",
        "The platform rejects our credentials.",
    )


@pytest.mark.parametrize(
    ("skew_s", "off"), [(3600.0, "60m ahead of"), (-30.0, "30s behind"), (5.4, "")]
)
def test_a_clock_that_is_off_is_said_where_times_are_shown(skew_s: float, off: str) -> None:
    shown = survey([row(1)])
    shown = replace(shown, issuer=replace(shown.issuer, skew_s=skew_s))

    words = f"The issuer's clock is {off} this machine's; times of tokens here are the issuer's."
    assert details(shown, "") == ((words,) if off else ())


def test_expired_tokens_are_said_though_no_replica_leads() -> None:
    shown = survey([row(1, -1.0)], lease=LAPSED)

    assert details(shown, headline(shown, "").sentence) == ("1 session holds an expired token.",)


@pytest.mark.parametrize("more", [{"lease": LAPSED}, {"down": "kube"}])
def test_no_survival_is_promised_where_nothing_is_written(more: dict[str, Any]) -> None:
    figure = stats(survey([row(1, 5.0)], **more))[0]

    assert (figure.value, figure.severity) == ("-", "bad")
    assert "until" not in figure.note
    breakers = tuple(
        BreakerStats(name, True, 12.0, 1, "mute") for name in ("kube", "platform", "issuer")
    )
    assert not any(
        "standby token" in each for each in details(survey([row(1)], breakers=breakers), "")
    )


def test_an_expiry_on_another_day_has_its_date() -> None:
    upcoming = stats(survey([row(1, 90_000.0)]))[1]

    assert upcoming.meaning == "At 2026-01-02T01:00:00Z, unless it is refreshed before."


def test_a_standby_shows_nothing_that_only_the_leader_knows() -> None:
    shown = survey([row(1, failures=2)], lease=STANDBY, queue=queue(for_issuer=3, overdue_s=99.0))

    assert details(shown, "") == ()
    assert "failing" not in {each.name for each in filters(shown)}
    sessions = stats(shown)[2]
    assert (sessions.note, sessions.severity) == ("with a pod or a Secret in the cluster", "good")
    assert [part.name for part in components(shown, "replica-0")] == [
        "Leader", "Watches", "API server", "Issuer",
    ]  # fmt: skip
