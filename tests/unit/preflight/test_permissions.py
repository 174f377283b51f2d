"""The table of rights, and the questions and rules that come of it."""

import pytest

from reconciler.preflight.permissions import (
    EXCESS_PERMISSIONS,
    PERMISSIONS,
    AccessQuery,
    questions,
    rule,
)


def test_nothing_is_asked_for_that_a_security_review_would_refuse() -> None:
    pairs = {(right.resource, verb) for right in PERMISSIONS for verb in right.verbs}
    assert ("secrets", "get") not in pairs
    assert not [verb for _, verb in pairs if verb in ("delete", "deletecollection", "*")]
    assert not pairs & {
        (right.resource, verb) for right in EXCESS_PERMISSIONS for verb in right.verbs
    }


@pytest.mark.parametrize(
    ("namespaces", "asked"), [([], {""}), (["a", "b"], {"a", "b"})], ids=["all", "listed"]
)
def test_sessions_are_asked_about_where_they_are_and_the_lease_at_home(
    namespaces: list[str], asked: set[str]
) -> None:
    found = questions(PERMISSIONS, namespaces=namespaces, own="home")
    assert {ask.namespace for right, ask in found if right.where == "sessions"} == asked
    assert {ask.namespace for right, ask in found if right.where == "own"} == {"home"}
    assert len({ask for _, ask in found}) == len(found)


@pytest.mark.parametrize(
    ("asks", "line"),
    [
        (
            [AccessQuery("a", "", "pods", "watch"), AccessQuery("a", "", "pods", "list")],
            '{apiGroups: [""], resources: [pods], verbs: [list, watch]}',
        ),
        (
            [AccessQuery("a", "coordination.k8s.io", "leases", "get", "mine")],
            "{apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [mine],"
            " verbs: [get]}",
        ),
    ],
    ids=["core", "named"],
)
def test_a_rule_can_be_pasted_into_a_role(asks: list[AccessQuery], line: str) -> None:
    assert rule(asks) == line
