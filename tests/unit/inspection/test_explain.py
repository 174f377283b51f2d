"""The description of a pod: each state says what it is, why, and what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.clock import EpochTime, format_utc
from reconciler.inspection.events import EventSummary, current_reports
from reconciler.inspection.explain import explain
from reconciler.inspection.hints import hints
from reconciler.inspection.printers import report_as_json
from reconciler.inspection.replicas import ObservedReplica, replica_of, replica_resource
from reconciler.inspection.report import Leader, describe_leader, leader_of
from reconciler.kube.api import ObjectMeta
from reconciler.leadership.lease import lease_resource, read
from reconciler.naming import Shard
from tests.unit.controller.build import NAMES, NOW_S, SEAL, TTL_S, secret
from tests.unit.inspection.build import assessed_pod, pod, report_of

SECRET = "Secret session-2abcdef-creds has "
REFRESH = (
    "Its next scheduled refresh is in 7m58s, at 2026-01-01T00:07:58Z: the pod's UID sets its "
    "refresh times, one every 6 min, and this is the one at which the token's age is 20%-60% of "
    "its life (54%)."
)
CONFIRMED = {NAMES.confirmation: SEAL}


def text_of(**of: object) -> str:
    return "\n".join(explain(report_of(assessed_pod(**of))))  # type: ignore[arg-type]  # checked there


def test_a_healthy_session_is_described_in_full() -> None:
    found = report_of(assessed_pod(secret(annotations=CONFIRMED)))
    assert explain(found) == [
        "The pod is live; it was created 60s ago for session 2abcDEF of project team-a.",
        f"{SECRET}a token that is valid for another 14m, until 2026-01-01T00:14:50Z (issued "
        "2025-12-31T23:59:50Z, for 15 min).",
        "It was written 10s ago, at 2025-12-31T23:59:50Z, by replica-0/1; there is no other "
        "writer since.",
        REFRESH,
        "The platform has confirmed this session, by a signed annotation that only the controller "
        "can verify.",
        "The controller has no recent Event on this pod.",
        "The leader is replica-0, which renewed lease ambient-code/token-reconciler 2s ago.",
    ]
    assert hints(found) == []


@pytest.mark.parametrize(
    ("found_secret", "words", "command"),
    [
        (None, "does not exist, so the pod has no token to read", ""),
        (secret(session_id=""), "without the label ambient-code.io/session-id", "kubectl delete"),
        (secret(session_id="2ABCdef"), "and both sessions' IDs give the same name", ""),
        (
            secret(session_id="2other"),
            "belongs to session 2other by its label, but its name is that of session 2abcDEF",
            "kubectl label secret -n team-a session-2abcdef-creds --overwrite"
            " ambient-code.io/session-id=2abcDEF",
        ),
        (secret(writers=()), "has no api-token", "refresh"),
        (secret(age_s=TTL_S + 30), "an expired token: it expired 30s ago", "refresh"),
        (secret(age_s=TTL_S - 30), "valid for another 30s", "refresh"),
        (secret(writers=("kubectl-edit",)), "that kubectl-edit wrote over ours", ""),
        (
            secret(age_s=None, writers=("ambient-control-plane",)),
            "a token that ambient-control-plane wrote, and the controller never did",
            "",
        ),
        (
            secret(annotations={NAMES.expires_at: "2199-01-01T00:00:00Z"}),
            "later than any token's life allows (ambient-code.io/token-expires-at is "
            "'2199-01-01T00:00:00Z'",
            "refresh",
        ),
        (
            secret(annotations={NAMES.expires_at: "\x1b[2Jx"}),
            "its expiry cannot be read (ambient-code.io/token-expires-at is "
            "'\N{REPLACEMENT CHARACTER}[2Jx'",
            "refresh",
        ),
        (
            secret(annotations={NAMES.expires_at: "2020-01-01T00:00:00Z"}),
            "its times contradict each other",
            "refresh",
        ),
        (secret(age_s=-3600.0), "it was issued 60m in the future by the API server's", "refresh"),
        (
            secret(annotations={NAMES.paused: "true"}),
            "It is not refreshed: the Secret has ambient-code.io/refresh-paused.",
            "resume",
        ),
    ],
    ids=[
        "missing", "unlabelled", "taken", "mislabelled", "empty", "expired", "expiring", "foreign",
        "unmanaged", "forged", "garbage", "impossible", "ahead", "paused",
    ],
)  # fmt: skip
def test_each_problem_is_described_with_what_to_do(
    found_secret: object, words: str, command: str
) -> None:
    assert words in text_of(found_secret=found_secret)
    found = hints(report_of(assessed_pod(found_secret)))  # type: ignore[arg-type]  # from the table
    assert found
    assert command in "".join(step.command for step in found)
    assert bool(command) == any(step.command for step in found)


def test_an_ended_pod_asks_for_nothing() -> None:
    found = report_of(assessed_pod(secret(age_s=TTL_S + 30)), ended=True)
    assert "The pod has ended, so its token is not refreshed." in explain(found)
    assert (hints(found), found.state, found.has_expired_token) == ([], "ended", False)


def test_nothing_is_promised_where_nothing_will_be_written() -> None:
    leaving = report_of(assessed_pod(None, on=pod(is_deleting=True)))
    assert "No Secret is created for a pod that is being deleted." in explain(leaving)
    assert hints(leaving) == []
    lost = explain(report_of(assessed_pod(secret(session_id=""))))
    assert "Nothing is written until the Secret has its labels again." in lost


def test_of_a_late_refresh_the_first_hint_is_a_missing_leader() -> None:
    row = assessed_pod(secret(age_s=700))
    found = report_of(row, leader=Leader("replica-0", NOW_S - 100, 15))
    assert "Its scheduled refresh was due" in "\n".join(explain(found))
    assert hints(found)[0].command == "kubectl get pods,leases -n ambient-code"


def test_each_recent_failure_is_described_once_and_cannot_move_the_cursor() -> None:
    event = EventSummary(
        True, "Refresh\x1bFailed", "the issuer\nis unreachable", 3, NOW_S - 90, NOW_S - 30
    )
    text = "\n".join(explain(report_of(assessed_pod(), events=[event])))
    assert (
        "Warning Refresh\N{REPLACEMENT CHARACTER}Failed (30s ago, 3 times since "
        "2025-12-31T23:58:30Z): the issuer is unreachable." in text
    )


def test_what_may_not_be_read_is_said() -> None:
    blind = Leader(problem="no right to get lease")
    text = "\n".join(
        explain(report_of(assessed_pod(), events_error="no right to list", leader=blind))
    )
    assert "Recent failures are unknown: no right to list." in text
    assert "The leader is unknown: no right to get lease." in text


def test_other_pods_of_the_session_and_its_end_are_named() -> None:
    row = assessed_pod(on=pod(is_deleting=True))
    [first, *_] = explain(report_of(row, siblings=["second"]))
    assert first.startswith("The pod is being deleted; ")
    assert first.endswith(" It shares its Secret with pod second.")


@pytest.mark.parametrize(
    ("leader", "words"),
    [
        (Leader("", None, 0), "There is no leader: lease ns/token-reconciler has no holder."),
        (
            Leader("r", NOW_S - 60, 15),
            "There is no leader: r last renewed lease ns/token-reconciler 60s ago; its duration is "
            "15s.",
        ),
        (
            Leader("r", None, 15),
            "There is no leader: lease ns/token-reconciler names r without a renewal time.",
        ),
    ],
    ids=["released", "stale", "undated"],
)
def test_a_lease_that_is_not_renewed_has_no_leader(leader: Leader, words: str) -> None:
    assert describe_leader(leader, "ns/token-reconciler", NOW_S) == words
    assert leader.is_stale(NOW_S)


def test_a_lease_is_read_as_the_server_sends_it() -> None:
    sent = (
        b'{"metadata":{"uid":"u","resourceVersion":"7"},"spec":{"holderIdentity":"replica-0","leaseDurationSeconds":15,'
        b'"renewTime":"2026-01-01T00:00:00.000000Z","leaseTransitions":3}}'
    )
    assert leader_of(read(lease_resource().decode(sent))) == Leader("replica-0", NOW_S, 15)
    empty = lease_resource().decode(b'{"metadata":{"uid":"u","resourceVersion":"7"}}')
    assert leader_of(read(empty)).is_stale(NOW_S)


def test_the_json_holds_all_that_the_sentences_say() -> None:
    found = report_as_json(report_of(assessed_pod(secret(age_s=TTL_S + 30))))
    assert found["state"] == "expired"
    assert found["leader"]["holder"] == "replica-0"
    assert found["next"][0]["text"].startswith("Search the leader's log")
    assert len(found["sentences"]) == 7


def test_when_a_leader_renewed_follows_from_the_api_servers_clock() -> None:
    def written(field: str, at_s: EpochTime) -> dict[str, object]:
        return {"time": format_utc(at_s), "fieldsV1": {"f:spec": {f"f:{field}": {}}}}

    lease = {
        "metadata": {
            "name": "token-reconciler",
            "uid": "uid",
            "resourceVersion": "7",
            "managedFields": [written("renewTime", NOW_S - 3), written("strategy", NOW_S - 1)],
        },
        "spec": {
            "holderIdentity": "replica-0",
            "leaseDurationSeconds": 15,
            "renewTime": format_utc(NOW_S - 3600),  # its own clock is an hour behind
        },
    }
    leader = leader_of(read(lease_resource().decode(json.dumps(lease).encode())))
    assert leader == Leader("replica-0", NOW_S - 3, 15)
    assert not leader.is_stale(NOW_S)


URL = "https://issuer.example/realms/" + "a-long-name/" * 40 + "token"
FAILED = EventSummary(
    True,
    "RefreshFailed",
    "The runner's token could not be refreshed (expired): "
    f"POST {URL}: answered 401 (invalid_client)",
    1,
    NOW_S - 30,
    NOW_S - 30,
)


def test_a_reason_is_never_cut_before_its_cause() -> None:
    text = "\n".join(explain(report_of(assessed_pod(), events=[FAILED])))
    assert "could not be refreshed (expired): POST https://issuer.example/realms/" in text
    assert "answered 401 (invalid_client)." in text
    long = FAILED.message.replace("a-long-name", "x" * 900)
    text = "\n".join(explain(report_of(assessed_pod(), events=[replace(FAILED, message=long)])))
    assert "answered 401 (invalid_client)." in text
    assert max(map(len, text.splitlines())) < 700


@pytest.mark.parametrize(
    "found_secret",
    [
        secret(age_s=TTL_S + 30),
        secret(age_s=None, writers=("ambient-control-plane",)),
        secret(annotations={NAMES.confirmation: ""}),
        None,
    ],
    ids=["expired", "unmanaged", "unconfirmed", "missing"],
)
@pytest.mark.parametrize("recovered", [False, True])
def test_while_its_tries_fail_nothing_is_advised_that_waits_for_the_controller(
    found_secret: object, *, recovered: bool
) -> None:
    row = assessed_pod(found_secret)  # type: ignore[arg-type]  # from the table
    over = EventSummary(False, "RefreshRecovered", "again", 1, NOW_S - 5, NOW_S - 5)
    events = [over, FAILED] if recovered else [FAILED]
    advice = "\n".join(map(str, hints(report_of(row, events=events))))
    assert ("reconciler check" in advice) == (not recovered)
    waits = "reconciler refresh" in advice or "Check that the platform" in advice
    assert waits == recovered


def test_without_a_controller_nothing_is_advised_that_waits_for_one() -> None:
    gone = Leader("replica-0", NOW_S - 100, 15)
    found = hints(report_of(assessed_pod(secret(age_s=TTL_S + 30)), leader=gone))
    assert [step.command for step in found] == ["kubectl get pods,leases -n ambient-code"]


@pytest.mark.parametrize("value", ["true", ""])
def test_after_resume_it_is_not_called_paused(value: str) -> None:
    event = EventSummary(False, "RefreshPaused", "Refreshing is paused", 1, NOW_S - 90, NOW_S - 90)
    found_secret = secret(annotations={NAMES.paused: value} if value else {})
    text = "\n".join(explain(report_of(assessed_pod(found_secret), events=[event])))
    assert ("paused" in text) == bool(value)


ABSENT = Leader(problem="there is no lease ambient-code/token-reconciler", is_absent=True)
REFUSED = EventSummary(
    True, "NotReady", "the issuer refuses our credentials: 401", 2, NOW_S - 90, NOW_S - 20,
    "replica-0",
)  # fmt: skip


def test_what_a_replica_reports_is_said_and_comes_first_in_the_advice() -> None:
    found = report_of(assessed_pod(secret(age_s=TTL_S + 30)), leader=ABSENT, reports=[REFUSED])
    assert (
        "Replica replica-0 reports NotReady (20s ago): the issuer refuses our credentials: 401."
        in explain(found)
    )
    assert str(hints(found)[0]).startswith("Fix what the replica reports above")
    assert "reconciler refresh" not in "\n".join(map(str, hints(found)))


def test_where_no_replica_was_ever_heard_of_that_is_said_and_what_it_may_mean() -> None:
    found = report_of(assessed_pod(secret(age_s=TTL_S + 30)), leader=ABSENT)
    assert "has no pod of the controller, and no replica has reported" in explain(found)[-1]
    assert [step.command for step in hints(found)] == [
        "kubectl get pods,leases -n ambient-code",
        "kubectl logs -n ambient-code deployment/token-reconciler --tail=20",
    ]


def test_what_may_not_be_read_of_the_replicas_is_called_unknown_and_no_absence() -> None:
    text = "\n".join(
        explain(
            report_of(
                assessed_pod(secret()),
                leader=ABSENT,
                reports_error="no right to list events",
                replicas_error="no right to list pods",
            )
        )
    )
    assert "What the replicas report on the Lease is unknown: no right to list events." in text
    assert "The state of the controller's pods is unknown: no right to list pods." in text
    assert "has no pod of the controller" not in text


def test_a_controller_pod_that_ended_is_described_with_its_message() -> None:
    ended = ObservedReplica(
        "r-0", False, 3, "CrashLoopBackOff", 2, NOW_S - 12, "reconciler: no token\n"
    )
    working = ObservedReplica("r-1", True)
    assert explain(report_of(assessed_pod(secret()), replicas=[ended, working]))[-1] == (
        "Controller pod r-0 is not ready: CrashLoopBackOff; after 3 restarts it ended 12s ago with"
        " exit code 2: reconciler: no token."
    )


def test_the_status_of_a_pod_is_read_as_a_kubelet_writes_it() -> None:
    decode = replica_resource().decode
    status = {
        "containerStatuses": [
            {
                "name": "reconciler",
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                "lastState": {
                    "terminated": {
                        "exitCode": 2,
                        "reason": "Error",
                        "message": "reconciler: no token\n",
                        "finishedAt": "2026-01-01T00:00:00Z",
                    }
                },
            }
        ]
    }
    pod = decode(json.dumps({"metadata": {"name": "r-0"}, "status": status}).encode())
    assert replica_of(pod) == ObservedReplica(
        "r-0",
        False,
        3,
        "CrashLoopBackOff: back-off 40s",
        2,
        EpochTime(1767225600),
        "reconciler: no token",
    )
    young = decode(json.dumps({"metadata": {"name": "r-1"}, "status": {}}).encode())
    assert replica_of(young) == ObservedReplica("r-1", False)


@pytest.mark.parametrize(
    ("value", "shard"), [("1/3", Shard(1, 3)), ("3/3", Shard(0, 1)), (None, Shard(0, 1))]
)
def test_the_shard_of_a_pod_is_that_of_its_environment(value: str | None, shard: Shard) -> None:
    env = [{"name": "NAMESPACE", "valueFrom": {}}]
    env += [{"name": "RECONCILER_SHARD", "value": value}] if value else []
    body = {"metadata": {"name": "r-0"}, "spec": {"containers": [{"env": env}]}}
    assert replica_of(replica_resource().decode(json.dumps(body).encode())).shard == shard


def test_a_session_that_no_shard_has_is_said_to_have_none() -> None:
    report = report_of(assessed_pod(secret()), replicas=[], other_shards=["0/3", "2/3"])
    assert explain(report)[-1] == (
        f"No pod of the controller in namespace {report.lease_namespace} has a shard with this"
        " session: they have 0/3, 2/3."
    )


def test_a_report_counts_while_it_is_repeated() -> None:
    over = replace(REFUSED, last_s=NOW_S - 151)
    assert current_reports([REFUSED, over], NOW_S) == [REFUSED]


def test_a_container_that_mounts_by_subpath_is_named_while_its_token_is_healthy() -> None:
    row = assessed_pod(secret(annotations=CONFIRMED))
    frozen = report_of(row, subpath_containers=("runner",))
    assert (
        "The kubelet never updates the token's file in container runner: the Secret is mounted by "
        "subPath. Such a container keeps the token that it started with."
    ) in explain(frozen)
    [hint] = hints(frozen)
    assert hint.text.startswith("Mount the Secret as a directory")
    assert report_as_json(frozen)["subPathContainers"] == ["runner"]
    ended = report_of(row, subpath_containers=("runner",), ended=True)
    assert "subPath" not in "\n".join(explain(ended))
    assert hints(ended) == []


@pytest.mark.parametrize(
    "found_secret", [None, secret(age_s=None, writers=(), sealed=False)], ids=["missing", "empty"]
)
def test_of_an_unconfirmed_session_without_a_token_the_platform_is_checked(
    found_secret: ObjectMeta | None,
) -> None:
    advice = list(map(str, hints(report_of(assessed_pod(found_secret)))))
    assert advice == [
        "Search the leader's log, in namespace ambient-code, for session 2abcDEF.",
        "Check that the platform has this session, with this project.",
    ]


PATCH = "PATCH secrets team-a/session-2abcdef-creds: the API server answered "
IMMUTABLE = f"{PATCH}422 Invalid, data (the object is immutable)"


def failing(error: str) -> list[str]:
    event = replace(FAILED, message=f"The runner's token could not be refreshed (due): {error}")
    row = assessed_pod(secret(age_s=700))
    return list(map(str, hints(report_of(row, events=[event]))))


def test_an_immutable_secret_is_named_with_the_command_that_replaces_it() -> None:
    [advice] = failing(IMMUTABLE)
    assert advice.startswith("Delete the immutable Secret")
    assert advice.endswith(": kubectl delete secret -n team-a session-2abcdef-creds")


@pytest.mark.parametrize(
    "answer",
    ["403 Forbidden, by quota objects", "403 Forbidden, by policy p", "422 Invalid, metadata"],
)
def test_credentials_are_not_suspected_where_the_api_server_refuses_the_object(answer: str) -> None:
    assert failing(f"{PATCH}{answer}") == [
        "Fix the cause in the Event RefreshFailed above; it is retried."
    ]
    assert "reconciler check" in failing(f"{PATCH}403 Forbidden")[1]


@pytest.mark.parametrize("reason", ["TokenOverwritten", "SecretFoughtOver"])
def test_another_writer_of_a_healthy_token_leads_to_the_runbook(reason: str) -> None:
    event = EventSummary(True, reason, "kubectl-edit overwrote it", 1, NOW_S - 9, NOW_S - 9)
    [advice] = hints(report_of(assessed_pod(), events=[event]))
    section = advice.text.partition("docs/runbooks.md, ")[2].split(",")[0]
    runbooks = Path(__file__).parents[3] / "docs" / "runbooks.md"
    assert f"## {section}\n" in runbooks.read_text()


def test_a_pod_that_mounts_another_secret_is_named_while_its_token_is_healthy() -> None:
    report = report_of(assessed_pod(), other_secrets=("other",))
    assert "The pod has no volume of Secret session-2abcdef-creds, but of Secret other." in explain(
        report
    )
    [advice] = hints(report)
    assert advice.text.startswith("Mount Secret session-2abcdef-creds in the template")
    assert report_as_json(report)["otherSecrets"] == ["other"]
