"""Findings: what fails, what is only a warning, and what to do about it."""

import math

import pytest

from reconciler.cli.check import as_json, as_text
from reconciler.errors import IssuerUnavailable
from reconciler.kube.secret_mounts import SecretMounts
from reconciler.preflight import findings
from reconciler.preflight.findings import Answer, Finding
from reconciler.preflight.permissions import EXCESS_PERMISSIONS, PERMISSIONS, questions


def answers(*refused: tuple[str, str], namespaces: tuple[str, ...] = ("a", "b")) -> list[Answer]:
    """Answer the whole table; `refused` are pairs of kind and verb."""
    return [
        (right, ask, (ask.resource, ask.verb) not in refused)
        for right, ask in questions(PERMISSIONS, namespaces=namespaces, own="home")
    ]


class TestRights:
    def test_all_granted_is_one_line(self) -> None:
        [finding] = findings.of_rights(answers(), cluster_wide=False)
        assert finding.level == "OK"

    def test_each_namespace_and_kind_has_its_own_line_and_rule(self) -> None:
        refused = [("secrets", "patch"), ("secrets", "create"), ("leases", "create")]
        found = findings.of_rights(answers(*refused), cluster_wide=False)
        assert [finding.message for finding in found] == [
            "cannot write a token or create a Secret again that was deleted in namespace a:"
            " patch, create secrets",
            "cannot write a token or create a Secret again that was deleted in namespace b:"
            " patch, create secrets",
            "cannot elect a leader in namespace home: create leases",
        ]
        assert found[0].remedy == (
            'grant {apiGroups: [""], resources: [secrets], verbs: [create, patch]}'
            " in a Role in namespace a"
        )

    def test_the_whole_cluster_can_be_given_up_for_a_list(self) -> None:
        asked = answers(("pods", "list"), namespaces=())
        [finding] = findings.of_rights(asked, cluster_wide=True)
        assert finding.message == "cannot see which sessions are live in all namespaces: list pods"
        assert finding.remedy.endswith("or list the namespaces in RECONCILER_NAMESPACES")

    def test_an_unneeded_right_is_a_warning(self) -> None:
        granted = [
            (right, ask, ask.resource == "secrets")
            for right, ask in questions(EXCESS_PERMISSIONS, namespaces=["a"], own="home")
        ]
        [finding] = findings.of_excess(granted)
        assert finding.level == "WARN"
        assert "may also get, delete secrets in namespace a" in finding.message


class TestMounts:
    def test_directories_are_no_finding(self) -> None:
        assert findings.of_mounts([SecretMounts("a", "one", ())]) == []

    def test_pods_that_mount_by_subpath_are_named_and_beyond_three_counted(self) -> None:
        frozen = [SecretMounts("a", f"pod-{number}", ("runner",)) for number in range(5)]
        [finding] = findings.of_mounts([*frozen, SecretMounts("a", "fine", ())])
        assert (finding.area, finding.level) == ("cluster", "WARN")
        assert "of 5 of 6 session pods" in finding.message
        assert finding.message.endswith("a/pod-2 (container runner), and 2 more")


@pytest.mark.parametrize(
    ("skew_s", "level", "words"),
    [
        (0.4, "OK", "within 5 s"),
        (-5.0, "OK", "within 5 s"),
        (12.0, "WARN", "12 s behind"),
        (-59.0, "WARN", "59 s ahead of"),
        (61.0, "FAIL", "61 s behind"),
    ],
)
def test_a_clocks_level_follows_from_its_offset(skew_s: float, level: str, words: str) -> None:
    finding = findings.of_clock(skew_s)
    assert finding.level == level
    assert words in finding.message


@pytest.mark.parametrize(
    ("offsets_s", "named"),
    [
        pytest.param({"wall_clock": 1.0, "issuer_date": -4.0}, {}, id="none-is-off"),
        pytest.param(
            {"wall_clock": 0.2, "issuer_date": 901.0, "api_server_date": 0.1},
            {"issuer_date": "Date header of the issuer's responses is 901 s ahead of the tokens"},
            id="a-gateway",
        ),
        pytest.param(
            {"wall_clock": -40.0, "api_server_date": 0.1},
            {"wall_clock": "this machine's clock is 40 s behind the issuer's"},
            id="this-node",
        ),
        pytest.param(
            {"wall_clock": 120.0},
            {"wall_clock": "this machine's clock is 120 s ahead of the issuer's"},
            id="this-node-as-far-as-can-be-known",
        ),
        pytest.param(
            {"wall_clock": 120.0, "issuer_date": 0.0, "api_server_date": 121.0},
            {"issuer": "this machine's clock and the API server's are 120 s ahead of the issuer's"},
            id="the-issuer",
        ),
        pytest.param(
            {"wall_clock": 120.0, "issuer_date": 120.0, "api_server_date": 121.0},
            {"issuer": "120 s ahead of the issuer's"},
            id="the-issuer-behind-a-gateway",
        ),
        pytest.param(
            {"wall_clock": 0.0, "api_server_date": -70.0},
            {"api_server_date": "the API server's clock is 70 s behind the issuer's"},
            id="the-api-server",
        ),
        pytest.param(
            {"wall_clock": 60.5, "issuer_date": 300.0, "api_server_date": 0.0},
            {"wall_clock": "60 s ahead", "issuer_date": "300 s ahead"},
            id="two",
        ),
    ],
)
def test_the_clock_that_is_wrong_is_named(
    offsets_s: dict[str, float], named: dict[str, str]
) -> None:
    found = findings.of_clocks(offsets_s)
    assert [each.clock for each in found] == list(named)
    assert all(named[each.clock] in each.finding.message for each in found)
    assert all(each.finding.level != "OK" and each.finding.remedy for each in found)


@pytest.mark.parametrize(
    ("ttl_s", "slack_s", "touch", "level"),
    [
        (900.0, 270.0, False, "OK"),
        (60.0, -66.0, True, "OK"),
        (60.0, -66.0, False, "FAIL"),
        (math.inf, math.inf, True, "WARN"),
    ],
    ids=["long", "touched", "too_short", "endless"],
)
def test_a_tokens_life_must_outlast_the_kubelets_delay(
    ttl_s: float, slack_s: float, touch: bool, level: str
) -> None:
    assert findings.of_token(ttl_s, slack_s=slack_s, touch=touch).level == level


@pytest.mark.parametrize("proxy", ["", "proxy.example:3128"])
def test_a_proxy_on_the_way_is_part_of_the_remedy(proxy: str) -> None:
    error = IssuerUnavailable("token request: answered 403")
    finding = findings.of_failure("issuer", error, hint="look", proxy=proxy, host="issuer.example")
    assert finding.message == "token request: answered 403"
    assert ("add issuer.example to NO_PROXY" in finding.remedy) == bool(proxy)


class TestOutput:
    FOUND = (
        Finding("settings", "OK", "works"),
        Finding("rights", "FAIL", "cannot", "grant"),
    )

    def test_text_puts_the_remedy_below_its_finding(self) -> None:
        assert as_text(self.FOUND).splitlines() == [
            "OK   settings works",
            "FAIL rights   cannot",
            "              -> grant",
        ]

    def test_json_is_one_object(self) -> None:
        assert as_json(self.FOUND[:1]) == (
            '{"ok":true,"findings":[{"area":"settings","level":"OK","message":"works","remedy":""}]}'
        )
        assert as_json(self.FOUND).startswith('{"ok":false,')
