"""Kubeconfigs as kubectl reads them: both get the same files, and both answer."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.clock import SystemClock
from reconciler.errors import SettingsError
from reconciler.kube.auth.contexts import read_context
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.auth.kubeconfig import read_files
from reconciler.kube.client import HttpKube
from reconciler.naming import Names
from tests.cluster.conftest import require
from tests.cluster.controlplane import ControlPlane
from tests.cluster.test_impersonation import BODY, WHOAMI

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

API = "client.authentication.k8s.io/v1"

PLUGIN = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
(here / os.environ["DUMP"]).write_text(os.environ["KUBERNETES_EXEC_INFO"])
token = (here / "plugin-token").read_text()
print(json.dumps({"apiVersion": "API", "kind": "ExecCredential", "status": {"token": token}}))
""".replace("API", API)


def kubectl(paths: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl with these files as KUBECONFIG."""
    return subprocess.run(
        [require("kubectl")["kubectl"], *words],
        env=os.environ | {"KUBECONFIG": paths} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def part(name: str, *, current: str | None = None, token: str = "fake") -> dict[str, Any]:
    """Return a kubeconfig of one cluster, user and context of a name."""
    return {
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example"}}],
        "users": [{"name": name, "user": {"token": f"{token}-{name}"}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}
        ],
    }


MORE = part("a") | {
    "users": [{"name": "a", "user": {"username": "other", "password": "fake"}}],
    "contexts": [{"name": "a", "context": {"cluster": "b", "user": "b"}}],
}
"""Entries of the same names as another file's, with other fields."""

NULLS = {"current-context": None, "clusters": None, "users": None, "contexts": None}

SETS: dict[str, list[Any]] = {
    "the first current context": [part("a", current="a"), part("b", current="b")],
    "the second file's, where the first has none": [part("a"), part("b", current="b")],
    "the second file's, where the first's is empty": [
        part("a", current=""),
        part("b", current="b"),
    ],
    "an empty file last": [part("a", current="a"), ""],
    "an empty file first": ["", part("a", current="a")],
    "an empty file between": [part("a"), "# nothing\n", part("b", current="b")],
    "null": [part("a", current="a"), "null\n"],
    "null values last": [part("a", current="a"), NULLS],
    "null values first": [NULLS, part("a", current="a")],
    "null fields": [
        part("a", current="a")
        | {"users": [{"name": "a", "user": {"token": "fake", "username": None, "exec": None}}]},
        {"users": [{"name": "b", "user": None}], "contexts": []},
    ],
    "one name in two files": [part("a", current="a"), MORE, part("b")],
    "one name in two files, the other way": [MORE, part("a", current="a"), part("b")],
    "a file that is missing": [None, part("a", current="a"), None],
    "the same file twice": [part("a", current="a"), "again"],
}

REFUSED: dict[str, list[Any]] = {
    "a list": [part("a", current="a"), "[]\n"],
    "no YAML": [part("a", current="a"), "{\n"],
    "a list that is none": [part("a", current="a"), {"users": "x"}],
    "one name twice in one file": [part("a") | {"users": part("a")["users"] * 2}],
}


def write(folder: Path, contents: list[Any]) -> str:
    """Write each file and return them as KUBECONFIG has them."""
    paths: list[str] = []
    for number, content in enumerate(contents):
        if content == "again":
            paths.append(paths[-1])
            continue
        path = folder / f"config-{number}"
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        paths.append(str(path))
    return ":".join(paths)


@pytest.mark.parametrize("name", SETS)
def test_the_merged_view_is_kubectls(name: str, tmp_path: Path) -> None:
    paths = write(tmp_path, SETS[name])
    shown = kubectl(paths, "config", "view", "--raw", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    theirs = json.loads(shown.stdout)
    ours = read_files(paths)
    assert ours.get("current-context", "") == theirs["current-context"]
    for section in ("clusters", "contexts", "users"):
        by_name = sorted(ours[section], key=lambda entry: str(entry["name"]))
        assert by_name == (theirs[section] or []), section
    current = kubectl(paths, "config", "current-context").stdout.strip()
    assert read_context(paths, None).name == current != ""


@pytest.mark.parametrize("name", REFUSED)
def test_what_kubectl_refuses_is_refused(name: str, tmp_path: Path) -> None:
    paths = write(tmp_path, REFUSED[name])
    assert kubectl(paths, "config", "view", "--raw").returncode != 0
    with pytest.raises(SettingsError, match="not a readable kubeconfig"):
        read_context(paths, None)


class Files:
    """Kubeconfigs in separate folders, against a real API server."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self.cluster = folder / "cluster" / "config"
        self.user = folder / "user" / "config"
        for path in (self.cluster, self.user):
            path.parent.mkdir()
        (self.cluster.parent / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
        (self.user.parent / "token").write_text(control_plane.token_for("tenant"))
        (self.user.parent / "plugin-token").write_text(control_plane.token_for("reconciler"))
        plugin = self.user.parent / "bin" / "plugin"
        plugin.parent.mkdir()
        (self.user.parent / "plugin.py").write_text(PLUGIN)
        script = shlex.quote(str(self.user.parent / "plugin.py"))
        plugin.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {script} "$@"\n')
        plugin.chmod(0o755)

    @property
    def paths(self) -> str:
        return f"{self.cluster}:{self.user}"

    def token(self, user: str) -> str:
        return self._control_plane.token_for(user)

    def write(self, user: dict[str, Any], **cluster: Any) -> None:
        """Write the cluster and the context into one file, the user into the other."""
        server = {"server": self._control_plane.url, "certificate-authority": "ca.crt"}
        self.cluster.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [{"name": "k", "cluster": server | cluster}],
                }
            )
        )
        other = part("other", current="other")
        other["users"].append({"name": "u", "user": user})
        self.user.write_text(json.dumps(other))

    def exec_info(self, name: str) -> dict[str, Any]:
        """Return the ExecCredential that the plug-in got."""
        found: dict[str, Any] = json.loads((self.user.parent / name).read_text())
        return found


@pytest.fixture
def files(control_plane: ControlPlane, tmp_path: Path) -> Files:
    return Files(control_plane, tmp_path)


def exec_section(**fields: Any) -> dict[str, Any]:
    return {"command": "./bin/plugin", "apiVersion": API, "interactiveMode": "Never"} | fields


USERS: dict[str, tuple[Callable[[Files], dict[str, Any]], str]] = {
    "a token": (lambda files: {"token": files.token("rival")}, "rival"),
    "a token file beside its kubeconfig": (lambda files: {"tokenFile": "token"}, "tenant"),
    "a token and a token file": (
        lambda files: {"token": files.token("rival"), "tokenFile": "token"},
        "tenant",
    ),
    "a token and a token file that is missing": (
        lambda files: {"token": files.token("rival"), "tokenFile": "nowhere"},
        "rival",
    ),
    "a plug-in beside its kubeconfig": (lambda files: {"exec": exec_section()}, "reconciler"),
    "a token before a plug-in": (
        lambda files: {"token": files.token("rival"), "exec": exec_section()},
        "rival",
    ),
    "a token file before a plug-in": (
        lambda files: {"tokenFile": "token", "exec": exec_section(command="/nowhere/plugin")},
        "tenant",
    ),
    "empty fields beside a plug-in": (
        lambda files: {"token": "", "tokenFile": None, "exec": exec_section(args=None, env=None)},
        "reconciler",
    ),
    "a plug-in that is null": (
        lambda files: {"token": files.token("rival"), "exec": None, "auth-provider": None},
        "rival",
    ),
}


@pytest.mark.parametrize("name", USERS)
async def test_the_api_server_sees_the_user_that_kubectl_is(
    name: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = USERS[name]
    files.write(make(files))
    shown = kubectl(files.paths, "auth", "whoami", "-o", "json", DUMP="kubectl")
    assert shown.returncode == 0, shown.stderr
    theirs = json.loads(shown.stdout)["status"]["userInfo"]
    monkeypatch.setenv("DUMP", "ours")
    async with HttpKube(
        find_credentials(files.paths, SystemClock()), Names(), connections=1
    ) as kube:
        ours = (await kube.create(WHOAMI, "", BODY)).status.user
    assert (ours.username, sorted(ours.groups)) == (theirs["username"], sorted(theirs["groups"]))
    assert ours.username == expected


@pytest.mark.parametrize("asks", [True, False, None])
@pytest.mark.parametrize(
    "cluster",
    [
        {},
        {
            "tls-server-name": "localhost",
            "disable-compression": True,
            "extensions": [
                {"name": "another", "extension": {"audience": "wrong"}},
                {
                    "name": "client.authentication.k8s.io/exec",
                    "extension": {"audience": "fake-audience", "list": [1, None]},
                },
            ],
        },
    ],
    ids=["plain", "with all fields"],
)
async def test_a_plug_in_gets_the_same_of_the_cluster_as_from_kubectl(
    asks: bool | None, cluster: dict[str, Any], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write({"exec": exec_section(provideClusterInfo=asks)}, **cluster)
    shown = kubectl(files.paths, "auth", "whoami", DUMP="kubectl")
    assert shown.returncode == 0, shown.stderr
    monkeypatch.setenv("DUMP", "ours")
    await find_credentials(files.paths, SystemClock()).headers()
    assert files.exec_info("ours") == files.exec_info("kubectl")
    assert ("cluster" in files.exec_info("ours")["spec"]) == bool(asks)
