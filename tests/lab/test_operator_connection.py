"""The operator's connection: old continue tokens, unusual answers, clocks that differ."""

import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

from reconciler.clock import EpochTime, SystemClock, format_utc
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.naming import Names, SessionKey
from tests.commands import Ended, command
from tests.lab.scripted_server import Scripted, answer, scripted

NAMES = Names()
AHEAD_S = 3630.0
"""The scripted server's clock less ours, seconds."""


def config(server: Scripted, folder: Path) -> str:
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "namespace": "team"}}],
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            }
        )
    )
    return str(path)


def meta(name: str, **metadata: Any) -> dict[str, Any]:
    labels = {NAMES.session_id: "one", NAMES.managed: "true"}
    own = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "7"}
    return {"metadata": own | {"labels": labels} | metadata}


def page(*items: dict[str, Any], more: str = "") -> bytes:
    return json.dumps(
        {"metadata": {"resourceVersion": "9", "continue": more}, "items": items}
    ).encode()


def held(*, expires_s: EpochTime) -> dict[str, Any]:
    """Return a Secret with a token of 15 minutes that expires then."""
    return meta(
        "session-one-creds",
        annotations={
            NAMES.issued_at: format_utc(expires_s - 900),
            NAMES.expires_at: format_utc(expires_s),
            NAMES.refreshed_by: "r/1",
            NAMES.confirmation: ConfirmationMac("obviously-fake").make(
                SessionKey("team", "one"), "uid"
            ),
        },
        managedFields=[
            {"manager": NAMES.field_manager, "fieldsV1": {"f:data": {f"f:{NAMES.secret_key}": {}}}}
        ],
    )


async def status(server: Scripted, folder: Path) -> Ended:
    return await command("status", "-o", "json", KUBECONFIG=config(server, folder))


async def test_a_continue_token_that_grew_too_old_starts_over_in_one_page(tmp_path: Path) -> None:
    gone = json.dumps({"kind": "Status", "code": 410, "reason": "Expired"}).encode()
    secret = held(expires_s=SystemClock().wall() + 600)
    turns = (
        answer(200, page(meta("one"), more="next")),
        answer(410, gone),
        answer(200, page(meta("one"), meta("two"))),
        answer(200, page(secret)),
    )
    async with scripted(*turns) as server:
        ended = await status(server, tmp_path)
    assert [row["pod"] for row in json.loads(ended.stdout)["sessions"]] == ["one", "two"]
    assert "limit=" not in server.requests[2].line


async def test_the_server_s_time_counts_and_a_clock_that_differs_is_named(tmp_path: Path) -> None:
    server_s = SystemClock().wall() + AHEAD_S
    dated = f"Date: {formatdate(float(server_s), usegmt=True)}\r\n"
    dead = held(expires_s=server_s - 30)  # by our own clock it would live for an hour
    turns = (
        answer(200, page(meta("one")), headers=dated),
        answer(200, page(dead), headers=dated),
    )
    async with scripted(*turns) as server:
        ended = await status(server, tmp_path)
    assert ended.code == 1
    assert json.loads(ended.stdout)["sessions"][0]["state"] == "expired"
    assert "this machine's clock is 60m behind the API server's" in ended.stderr


async def test_a_server_that_is_no_url_is_a_wrong_kubeconfig(tmp_path: Path) -> None:
    async with scripted() as server:
        server.url = server.url.removeprefix("http:")
        ended = await status(server, tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


async def test_a_404_of_another_server_is_exit_9(tmp_path: Path) -> None:
    async with scripted(answer(404, b"<html>Not Found</html>")) as server:
        ended = await status(server, tmp_path)
    assert (ended.code, ended.stdout) == (9, "")
    assert ended.stderr == (
        "reconciler: cannot list pods in namespace team: the server of context c is no Kubernetes"
        " API server: it answered 404\n"
    )


async def test_an_answer_that_is_no_list_is_exit_4(tmp_path: Path) -> None:
    async with scripted(answer(200, b"<html>a login page</html>")) as server:
        ended = await status(server, tmp_path)
    assert (ended.code, ended.stdout) == (4, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("reconciler: cannot list pods in namespace team: ")
    assert "login" not in line
