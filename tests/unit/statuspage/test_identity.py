"""Which replica, cluster, namespace and shard a page is of, and the command to the leader."""

import pytest

from reconciler.controller.status.snapshot import LeaseStatus
from reconciler.naming import ALL_SESSIONS, Shard
from reconciler.statuspage.identity import Links, PageIdentity, cluster_name, leader_name


@pytest.mark.parametrize(
    ("identity", "shard", "place"),
    [
        (PageIdentity("r"), ALL_SESSIONS, ""),
        (PageIdentity("r", "ambient-code"), ALL_SESSIONS, "ambient-code"),
        (PageIdentity("r", "ambient-code", "east"), Shard(1, 3), "east / ambient-code / shard 1/3"),
    ],
)
def test_the_place_is_what_is_known_of_it(identity: PageIdentity, shard: Shard, place: str) -> None:
    assert identity.place(shard) == place


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("", ""),
        ("k8s.cluster.name=east", "east"),
        ("service.namespace=a, k8s.cluster.name = eu%20west ,x=y", "eu west"),
        ("k8s.cluster.name.other=east", ""),
    ],
)
def test_the_cluster_is_the_one_of_the_traces(value: str, name: str) -> None:
    assert cluster_name({"OTEL_RESOURCE_ATTRIBUTES": value}) == name
    assert cluster_name({}) == ""


@pytest.mark.parametrize(
    ("holder", "command"),
    [
        ("replica-1_uid_nonce", "kubectl -n ambient-code port-forward replica-1 9090"),
        ("replica-1/3-nonce", "kubectl -n ambient-code port-forward replica-1 9090"),
        ("", ""),
        ("x;reboot_uid", ""),
        ("-v_uid", ""),
        ("$(id)", ""),
    ],
)
def test_the_command_to_the_leader_holds_nothing_but_a_pods_name(holder: str, command: str) -> None:
    lease = LeaseStatus("a/1", False, holder, 1, 0)

    assert PageIdentity("r", "ambient-code", port=9090).leader_command(lease) == command
    assert PageIdentity("r").leader_command(lease) == ""
    assert leader_name(lease) in holder


def test_a_link_leads_to_the_section_of_the_alert_or_to_the_trace() -> None:
    links = Links(runbooks="https://docs.example/r.md", traces="https://j.example/t/{trace_id}?x=1")

    assert links.runbook("TokenReconcilerLate") == "https://docs.example/r.md#tokenreconcilerlate"
    assert links.trace("0af7") == "https://j.example/t/0af7?x=1"
    assert (links.runbook(""), links.trace(""), Links().runbook("TokenReconcilerLate")) == ("",) * 3
    assert Links().trace("0af7") == ""
