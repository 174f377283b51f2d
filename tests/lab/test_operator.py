"""`status` and `explain` as processes against the lab's API server, without a controller."""

import asyncio
import json
import re
import socket

import pytest
import yaml

from reconciler.clock import SystemClock, format_utc, format_utc_millis
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Caller
from reconciler.naming import Names
from tests.commands import command
from tests.lab.operator_lab import TTL_S, Lab

NAMES = Names()


async def test_status_shows_the_next_to_expire_first_in_plain_columns(lab: Lab) -> None:
    lab.add("2AbYoung", age_s=10)
    lab.add("2AbOld", age_s=300)
    lab.add("2AbElsewhere", namespace="team-b")
    ended = await lab.run("status")
    assert ended.code == 0
    assert [line.split()[:2] for line in ended.lines] == [
        ["SESSION", "POD"],
        ["2AbOld", "session-2abold-runner"],
        ["2AbYoung", "session-2abyoung-runner"],
    ]
    assert "\x1b" not in ended.stdout
    assert "next to expire: team-a/session-2abold-runner in 9m" in ended.stderr
    everywhere = await lab.run("status", "-A")
    assert everywhere.lines[0].startswith("NAMESPACE   SESSION")
    assert len(everywhere.lines) == 4
    one = await lab.run("status", "-n", "team-b")
    assert [line.split()[0] for line in one.lines] == ["SESSION", "2AbElsewhere"]


async def test_an_expired_token_of_a_running_pod_is_exit_1_until_its_pod_ends(lab: Lab) -> None:
    dead = lab.add("2AbDead", age_s=TTL_S + 60)
    ended = await lab.run("status")
    assert ended.code == 1
    assert re.search(r" -6\ds +expired ", ended.lines[1])
    assert (await lab.run("explain", dead.pod)).code == 1
    patch = {"status": {"phase": "Succeeded"}}
    core = lab.server.core
    core.patch(kinds.PODS, dead.namespace, dead.pod, patch, subresource="status")
    assert (await lab.run("status")).code == 0
    explained = await lab.run("explain", dead.pod)
    assert explained.code == 0
    assert "The pod has ended" in explained.stdout


async def test_json_is_one_object_with_each_state(lab: Lab) -> None:
    paused = {NAMES.paused: "true"}
    lab.add("ok")
    lab.add("paused", on_pod=paused)
    lab.add("unmanaged", age_s=None)
    lab.add("missing", secret=False)
    lab.add("forged", annotations={NAMES.expires_at: "2199-01-01T00:00:00Z"})
    garbage = {NAMES.expires_at: "\x1b[2J", NAMES.refreshed_by: "\x1b]0;owned\x07"}
    lab.add("garbage", annotations=garbage)
    foreign = lab.add("foreign")
    patch = {"stringData": {NAMES.secret_key: "obviously-fake-other"}}
    lab.server.core.patch(kinds.SECRETS, "team-a", foreign.secret, patch, by=Caller(manager="vi"))
    ended = await lab.run("status", "-o", "json")
    found = json.loads(ended.stdout)
    assert {row["session"]: row["state"] for row in found["sessions"]} == {
        "ok": "ok",
        "paused": "paused",
        "unmanaged": "unmanaged",
        "missing": "no_secret",
        "forged": "unreadable",
        "garbage": "unreadable",
        "foreign": "foreign_writer",
    }
    assert found["summary"]["unhealthy"] == 6
    assert (ended.code, ended.stderr) == (0, "")
    table = await lab.run("status")
    assert "\x1b" not in table.stdout + table.stderr
    text = (await lab.run("explain", "garbage")).stdout
    assert "\x1b" not in text
    assert "its expiry cannot be read" in text


async def test_a_selector_narrows_and_a_wrong_one_is_said(lab: Lab) -> None:
    lab.add("2AbOne")
    lab.add("2AbTwo")
    ended = await lab.run("status", "-l", f"{NAMES.session_id}=2AbTwo")
    assert [line.split()[0] for line in ended.lines[1:]] == ["2AbTwo"]
    wrong = await lab.run("status", "-l", "a==b==c")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert wrong.stderr.endswith("the API server rejects the selector\n")


async def test_a_namespace_without_sessions_is_no_failure(lab: Lab) -> None:
    ended = await lab.run("status", "-n", "empty")
    assert (ended.code, ended.stdout) == (0, "")
    assert (
        ended.stderr == "reconciler: no session pods in namespace empty; -A lists all namespaces\n"
    )


async def test_status_of_named_pods_shows_these_alone(lab: Lab) -> None:
    one = lab.add("2AbOne")
    lab.add("2AbTwo", age_s=TTL_S + 60)
    lab.add("2AbThree", namespace="team-b")
    named = await lab.run("status", one.pod, "--no-headers")
    assert [line.split()[:2] for line in named.lines] == [["2AbOne", one.pod]]
    assert (named.code, named.stderr.splitlines()[0][:14]) == (0, "1 session pod:")
    both = await lab.run("status", "2AbTwo", "nosuch", "-o", "name")
    assert (both.code, both.stdout) == (1, "pod/session-2abtwo-runner\n")
    assert both.stderr == "reconciler: no live pod or session nosuch in namespace team-a\n"
    part = await lab.run("status", "2AbOne", "nosuch", "-o", "name")
    assert (part.code, part.stdout) == (6, f"pod/{one.pod}\n")
    anywhere = await lab.run("status", "-A", "2AbThree", "--no-headers")
    assert [line.split()[:2] for line in anywhere.lines] == [["team-b", "2AbThree"]]
    assert " ok " in anywhere.lines[0]


async def test_wide_has_more_columns_and_yaml_is_what_json_is(lab: Lab) -> None:
    one = lab.add("2AbOne")
    wide = await lab.run("status", "-o", "wide")
    columns = wide.lines[0].split()
    assert columns[-4:] == ["PROJECT", "SECRET", "NEXT", "REASON"]
    values = re.split(r" {3,}", wide.lines[1])
    assert dict(zip(columns, values, strict=True))["SECRET"] == one.secret
    as_yaml = yaml.safe_load((await lab.run("status", "-o", "yaml")).stdout)
    as_json = json.loads((await lab.run("status", "-o", "json")).stdout)
    for found in (as_yaml, as_json):  # two reads: all but the passing seconds is equal
        del found["at"], found["sessions"][0]["expiresInSeconds"]
    assert as_yaml == as_json
    described = yaml.safe_load((await lab.run("explain", one.pod, "-o", "yaml")).stdout)
    assert (described["pod"], described["state"]) == (one.pod, "ok")


@pytest.mark.parametrize("form", ["{0} {1}", "{0}{1}", "{0}={1}"])
async def test_a_short_option_takes_its_value_in_each_form_of_kubectl(lab: Lab, form: str) -> None:
    one = lab.add("2AbOne", namespace="team-b")
    options = {"-o": "name", "-n": "team-b", "-l": f"{NAMES.session_id}=2AbOne"}
    words = [form.format(name, value) for name, value in options.items()]
    ended = await lab.run("status", *" ".join(words).split())
    assert (ended.code, ended.stdout) == (0, f"pod/{one.pod}\n")


async def test_a_jsonpath_template_gives_single_values(lab: Lab) -> None:
    one, other = lab.add("2AbOne"), lab.add("2AbOther", secret=False)
    template = '{range .sessions[?(@.state!="ok")]}{.namespace}/{.pod}{"\\n"}{end}'
    ended = await lab.run("status", "-o", f"jsonpath={template}")
    assert (ended.code, ended.stdout) == (0, f"team-a/{other.pod}\n")
    explained = await lab.run("explain", one.pod, "-o", "jsonpath={.state}")
    assert explained.stdout == "ok"


async def test_sort_by_orders_every_format_and_puts_what_is_unknown_first(lab: Lab) -> None:
    lab.add("2Ab10", age_s=10)
    lab.add("2Ab9", age_s=300)
    lab.add("2AbNone", age_s=None)
    by_name = await lab.run("status", "--sort-by={.session}", "--no-headers")
    assert [line.split()[0] for line in by_name.lines] == ["2Ab9", "2Ab10", "2AbNone"]
    by_expiry = await lab.run("status", "--sort-by=.expiresAt", "-o", "json")
    rows = json.loads(by_expiry.stdout)["sessions"]
    assert [row["session"] for row in rows] == ["2AbNone", "2Ab9", "2Ab10"]


async def test_a_thousand_sessions_are_read_page_by_page(lab: Lab) -> None:
    for number in range(1001):
        lab.add(f"2Ab{number:04}")
    ended = await lab.run("status")
    assert len(ended.lines) == 1002
    assert lab.server.requests["list", "pods"] == 3


async def test_explain_tells_failures_leader_and_what_to_do(lab: Lab) -> None:
    late = lab.add("2AbLate", age_s=TTL_S - 40)
    core = lab.server.core
    uid = lab.pod(late)["metadata"]["uid"]
    for number, component in enumerate((NAMES.field_manager, "kubelet")):
        event = {
            "metadata": {"name": f"e{number}"},
            "involvedObject": {"kind": "Pod", "name": late.pod, "namespace": "team-a", "uid": uid},
            "source": {"component": component},
            "type": "Warning",
            "reason": "RefreshFailed",
            "message": f"the issuer is unreachable, says {component}",
            "count": 3,
            "lastTimestamp": format_utc(SystemClock().wall() - 30),
        }
        core.create(kinds.EVENTS, "team-a", event)
    core.create(kinds.NAMESPACES, "", {"metadata": {"name": "ambient-code"}})
    lease = {
        "metadata": {"name": "token-reconciler"},
        "spec": {
            "holderIdentity": "replica-7",
            "leaseDurationSeconds": 1,
            "renewTime": format_utc_millis(SystemClock().wall() + 3600),
        },
    }
    core.create(kinds.LEASES, "ambient-code", lease)
    async with asyncio.timeout(30):  # the claim runs out by the server's clock, not its holder's
        output = ""
        while "There is no leader" not in output:
            output = (await lab.run("explain", f"team-a/{late.pod}", user="admin")).stdout
    assert "the issuer is unreachable, says token-reconciler." in output
    assert "kubelet" not in output
    assert (
        "There is no leader: replica-7 last renewed lease ambient-code/token-reconciler" in output
    )
    assert (
        "Next: There is no leader; check the controller's pods: kubectl get pods,leases" in output
    )
    blind = await lab.run("explain", f"team-a/{late.pod}")
    assert "The leader is unknown: no right to get lease token-reconciler" in blind.stdout
    found = json.loads((await lab.run("explain", "2AbLate", "-o", "json", user="admin")).stdout)
    assert (found["state"], found["leader"]["stale"]) == ("expiring", True)
    assert [event["count"] for event in found["events"]] == [3]


async def test_a_session_is_found_in_any_namespace_unless_two_have_it(lab: Lab) -> None:
    one = lab.add("2AbOne", namespace="team-b")
    for words in ("status", "explain", "refresh", "pause", "resume"):
        ended = await lab.run(words, "2AbOne", "-A", user="writer")
        assert (ended.code, one.pod in ended.stdout) == (0, True)
    lab.add("2AbOne", namespace="team-c")
    for words in ("explain", "refresh", "pause", "resume"):
        twice = await lab.run(words, "2AbOne", "-A", user="writer")
        assert (twice.code, twice.stdout) == (2, "")
        assert "2AbOne is in the namespaces team-b, team-c: use NAMESPACE/POD" in twice.stderr


@pytest.mark.parametrize("words", ["{pod}", "team-a/{pod}", "pod/{pod}", "{session_id}"])
async def test_a_pod_may_be_named_in_every_usual_way(lab: Lab, words: str) -> None:
    one = lab.add("2AbOne")
    named = words.format(pod=one.pod, session_id=one.session_id)
    assert (await lab.run("explain", named)).lines[0] == f"team-a/{one.pod}: ok"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["explain", "nosuch"], 6, "no pod or session nosuch in namespace team-a"),
        (["explain", "x" * 70], 6, f"no pod or session {'x' * 70} in namespace team-a"),
        (["explain", "a/b/c"], 2, "'a/b/c' is no pod's name: use POD or NAMESPACE/POD"),
        (["explain", "x,y=z"], 2, "'x,y=z' is no pod's name: use POD or NAMESPACE/POD"),
        (["explain", "-n", "q", "team-a/x"], 2, "team-a/x: -n names another namespace, q"),
        (["explain", "plain"], 6, "pod team-a/plain belongs to no session: it has no label"),
        (
            ["status", "-o", "x"],
            2,
            "-o x: the formats are table, wide, yaml, json, name and jsonpath=",
        ),
        (
            ["explain", "x", "-o", "wide"],
            2,
            "-o wide: the formats are table, yaml, json and jsonpath=",
        ),
        (["status", "-o", "jsonpath={.a"], 2, "-o jsonpath: '{.a': there is no } to this {"),
        (["status", "--sort-by=.nope"], 2, "--sort-by=.nope: the fields are .namespace, .pod"),
        (["status", "nosuch"], 6, "no live pod or session nosuch in namespace team-a"),
        (["status", "nosuch", "-A"], 6, "no live pod or session nosuch in any namespace"),
        (["status", "plain"], 6, "no live pod or session plain in namespace team-a"),
        (["status", "x", "-l", "a=b"], 2, "name pods, or use -l: not both"),
        (["status", "--context", "nope"], 2, "it has no context 'nope'; there is: lab"),
        (["status", "--kubeconfig", "/nowhere/x"], 2, "KUBECONFIG /nowhere/x: no such file"),
        (["status", "-n", "team-a/pods"], 2, "-n 'team-a/pods': no namespace's name"),
        (["refresh"], 2, "name pods, or use -l, or use --all: exactly one of these"),
        (["refresh", "x", "--all"], 2, "one of these"),
        (["refresh", "x", "-A"], 6, "no pod or session x in any namespace"),
        (["explain", "x", "-A"], 6, "no pod or session x in any namespace"),
        (["refresh", "x", "--timeout=soon"], 2, "--timeout=soon: not a time like 30s, 5m or 1h30m"),
        (["pause", "x", "--dry-run=server"], 2, "--dry-run=server: must be none or client"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
async def test_what_is_typed_wrong_gets_one_clear_line(
    lab: Lab, words: list[str], code: int, said: str
) -> None:
    lab.add("2AbOne")
    plain = {"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    lab.server.core.create(kinds.PODS, "team-a", plain)
    ended = await lab.run(*words)
    [line] = ended.stderr.splitlines()
    assert (ended.code, ended.stdout) == (code, "")
    assert line.startswith("reconciler: ")
    assert said in line


async def test_missing_rights_and_refused_credentials_are_exit_5(lab: Lab) -> None:
    one = lab.add("2AbOne")
    no_list = await lab.run("status", "-A", user="nobody")
    assert (no_list.code, no_list.stderr) == (
        5,
        "reconciler: no right to list pods in all namespaces; check with: "
        "kubectl auth can-i list pods -A\n",
    )
    no_patch = await lab.run("refresh", one.pod)
    assert (no_patch.code, no_patch.stdout) == (5, "")
    assert "check with: kubectl auth can-i patch pods -n team-a" in no_patch.stderr
    unknown = await lab.run("status", user="stranger")
    assert (unknown.code, unknown.stderr) == (
        5,
        "reconciler: the cluster rejects the credentials of context lab\n",
    )


async def test_a_server_that_is_not_there_or_fails_is_exit_4(lab: Lab) -> None:
    lab.server.faults.fail(503, share=1.0)
    failing = await lab.run("status")
    assert failing.code == 4
    assert "the API server answered 503" in failing.stderr
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, never listening: every connection is refused
        port = reserved.getsockname()[1]
        path = lab.folder / "unreachable"
        text = lab.server.kubeconfig().replace(lab.server.url, f"http://127.0.0.1:{port}")
        path.write_text(text)
        failed = await lab.run("status", KUBECONFIG=str(path))
    assert (failed.code, failed.stdout) == (4, "")
    [line] = failed.stderr.splitlines()
    assert f"cannot connect to 127.0.0.1:{port} (Connection refused)" in line


async def test_without_any_kubeconfig_it_says_where_one_is_looked_for() -> None:
    ended = await command("status")
    assert (ended.code, ended.stderr) == (
        2,
        "reconciler: no kubeconfig: set KUBECONFIG, name one by --kubeconfig, or run in a pod\n",
    )
