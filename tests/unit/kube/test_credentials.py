"""Credentials from files and plug-ins: what is re-read when, and what never shows in a message."""

import asyncio
import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.clock import EpochTime
from reconciler.errors import SettingsError
from reconciler.kube.auth import credentials, kubeconfig
from reconciler.kube.auth.credentials import InClusterCredentials, find_credentials
from reconciler.kube.auth.kubeconfig import RELOAD_PAUSE_S, KubeconfigCredentials
from reconciler.kube.auth.token_file import REREAD_S, TokenFile
from reconciler.net.file_rotation import LOOK_S
from tests.support import ManualClock

SECRET = "tok-e-n.hidden"
PLUGIN = """
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
runs = here / "runs"
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
print("y" * 200_000, file=sys.stderr)
print("the session has ended", file=sys.stderr)
said = (here / "says").read_text()
if said == "hang":
    time.sleep(600)
if said == "fail":
    sys.exit(3)
print(said.replace("COUNT", str(len(runs.read_text()))))
"""


def write_config(path: Path, user: dict[str, Any], **cluster: Any) -> str:
    merged = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"} | cluster}],
        "users": [{"name": "u"} | user],
    }
    path.write_text(json.dumps(merged))
    return str(path)


def edit_context(path: str, **fields: Any) -> None:
    """Set fields of a kubeconfig's only context."""
    merged = json.loads(Path(path).read_text())
    merged["contexts"][0]["context"] |= fields
    Path(path).write_text(json.dumps(merged))


class Exec:
    """A kubeconfig with a user's plug-in that counts its runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        script = folder / "plugin.py"
        script.write_text(PLUGIN)
        section = {"command": sys.executable, "args": [str(script)], "apiVersion": "v1"}
        self.path = write_config(folder / "config", {"user": {"exec": section}})

    def says(self, text: str) -> None:
        (self._folder / "says").write_text(text)

    def gives(self, token: str, *, expires_s: EpochTime | None = None) -> None:
        status = {"token": token}
        if expires_s is not None:
            status["expirationTimestamp"] = datetime.fromtimestamp(
                float(expires_s), UTC
            ).isoformat()
        self.says(json.dumps({"apiVersion": "v1", "kind": "ExecCredential", "status": status}))

    @property
    def runs(self) -> int:
        runs = self._folder / "runs"
        return len(runs.read_text()) if runs.exists() else 0


@pytest.fixture
def plugin(tmp_path: Path) -> Exec:
    return Exec(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_token_file_is_read_again_in_time_and_stripped(
    tmp_path: Path, clock: ManualClock
) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    token = TokenFile(file, clock)
    assert token.value() == "one"
    file.write_text("two")
    clock.advance(REREAD_S - 1)
    assert token.value() == "one"
    clock.advance(1)
    assert token.value() == "two"
    file.write_text("three")
    assert token.value(fresh=True) == "three"


@pytest.mark.parametrize("half", [b"", b"\n", b"a\nb", b"a b", b"\xff\xfe", b"a\x00b", None])
def test_a_half_written_token_file_keeps_the_old_token(
    half: bytes | None, tmp_path: Path, clock: ManualClock
) -> None:
    file = tmp_path / "token"
    file.write_text("good")
    token = TokenFile(file, clock)
    assert token.value() == "good"
    if half is None:
        file.unlink()
    else:
        file.write_bytes(half)
    clock.advance(REREAD_S)
    assert token.value() == token.value(fresh=True) == "good"
    file.write_text("next")
    assert token.value() == "next"


@pytest.mark.parametrize(("host", "url"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
async def test_a_pod_finds_its_server_in_the_environment(
    host: str, url: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(SettingsError, match="certificates for") as caught:
        await InClusterCredentials(clock, folder=tmp_path).connection()
    assert f"https://{url}:443" in str(caught.value)
    assert SECRET not in f"{caught.value!r}"


async def test_outside_a_pod_one_line_says_so(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(credentials, "DEFAULT_KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(
        SettingsError,
        match=r"^not in a pod, KUBECONFIG is not set, and there is no ~/\.kube/config$",
    ):
        await find_credentials("", clock).connection()


@pytest.mark.parametrize("token", [SECRET, SECRET + "\n"])
async def test_a_kubeconfigs_token_is_sent_stripped(
    token: str, tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {"token": token}})
    credentials = find_credentials(path, clock)
    assert (await credentials.connection()).url == "http://127.0.0.1:1"
    assert await credentials.headers() == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in f"{credentials!r}{await credentials.connection()!r}"


async def test_a_token_file_overrides_the_kubeconfigs_user(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {"token": "other"}})
    (tmp_path / "token").write_text(SECRET)
    credentials = find_credentials(path, clock, token_file=tmp_path / "token")
    assert await credentials.headers() == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("token_file", [False, True])
async def test_each_request_carries_the_kubeconfigs_impersonation(
    token_file: bool, tmp_path: Path, clock: ManualClock
) -> None:
    user = {"token": SECRET, "as": "limited", "as-groups": ["a", "b"]}
    path = write_config(tmp_path / "config", {"user": user})
    (tmp_path / "token").write_text(SECRET)
    file = tmp_path / "token" if token_file else None
    headers = await find_credentials(path, clock, token_file=file).headers()
    assert list(headers.items()) == [
        ("Authorization", f"Bearer {SECRET}"),
        ("Impersonate-User", "limited"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
    ]


async def test_a_field_without_effect_is_named_once(
    plugin: Exec, tmp_path: Path, clock: ManualClock
) -> None:
    plugin.gives("t-COUNT")
    section = {
        "command": sys.executable,
        "args": [str(tmp_path / "plugin.py")],
        "apiVersion": "v1",
        "provideClusterInfo": True,
    }
    path = write_config(tmp_path / "config", {"user": {"exec": section}})
    edit_context(path, colour="red")
    fields: list[str] = []
    credentials = find_credentials(path, clock, ignored=fields.append)
    await credentials.connection()
    clock.advance(RELOAD_PAUSE_S)
    await credentials.renew()
    assert (fields, plugin.runs) == (["context.colour"], 2)


async def test_a_user_that_is_absent_is_not_anonymous(tmp_path: Path, clock: ManualClock) -> None:
    path = write_config(tmp_path / "config", {"user": {"token": SECRET}})
    edit_context(path, user="another")
    with pytest.raises(SettingsError, match="its context names a user that is not there"):
        await find_credentials(path, clock).connection()


async def test_a_restriction_that_cannot_be_honoured_is_one_line(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {"token": SECRET, "as-groups": ["a"]}})
    with pytest.raises(SettingsError) as caught:
        await find_credentials(path, clock).connection()
    assert str(caught.value) == f"KUBECONFIG {path}: its user sets as-groups without as"


@pytest.mark.parametrize(
    "text",
    ["", "{", f"a: [{SECRET}", "[]", f'{{"token": "{SECRET}"}}', "current-context: c",
     f'{{"current-context":"c","contexts":[{{"name":"c","context":{{"cluster":"k","user":"u"}}}}],'
     f'"clusters":[{{"name":"k","cluster":{{"server":"http://x"}}}}],'
     f'"users":[{{"name":"u","token":"{SECRET}"}}]}}'],
)  # fmt: skip
async def test_a_broken_kubeconfig_is_one_line_without_its_tokens(
    text: str, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        await find_credentials(str(path), clock).connection()
    said = str(caught.value)
    assert said.startswith(f"KUBECONFIG {path}: ")
    assert "\n" not in said
    assert SECRET not in said + caplog.text


async def test_a_cluster_without_a_server_is_not_this_machine(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {}}, server="")
    with pytest.raises(SettingsError, match="names no server"):
        await find_credentials(path, clock).connection()


@pytest.mark.parametrize(
    "server",
    [
        "not-a-url", "localhost:6443", "//host", "ftp://host", "https://", "https://:443",
        "http://[::1", "https://host:0", "https://host:65536", "https://host:abc", "https://a..b",
        f"https://{'a' * 64}.example", "https:// host", "https://ho\x01st", "https://host/a b",
        f"https://user:{SECRET}@host", f"https://{SECRET}@host", f"https://host?x={SECRET}",
        f"https://host#{SECRET}", "https://host?", "https://host/#", "https://256.1.1.1",
        "https://a|b", "https://a%20b", "https://[v1.x]:6443",
    ],
)  # fmt: skip
async def test_a_server_that_is_no_usable_url_is_a_wrong_setting(
    server: str, tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {}}, server=server)
    with pytest.raises(SettingsError, match="the server of the cluster") as caught:
        await find_credentials(path, clock).connection()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "server",
    ["https://host", "http://host:8080/", "https://[::1]:6443", "https://h/k8s/clusters/c-m-1",
     "https://m\u00fcnchen.example"],
)  # fmt: skip
async def test_a_server_that_is_a_url_is_used(
    server: str, tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {}}, server=server)
    assert (await find_credentials(path, clock).connection()).url == server.rstrip("/")


async def test_a_plug_in_runs_again_before_its_end_and_after_a_refusal(
    plugin: Exec, clock: ManualClock
) -> None:
    plugin.gives("t-COUNT", expires_s=clock.wall() + 900)
    credentials = KubeconfigCredentials(plugin.path, clock)
    await credentials.connection()
    assert await credentials.headers() == {"Authorization": "Bearer t-1"}
    clock.advance(900 - kubeconfig.EXPIRY_MARGIN_S - 1)
    assert await credentials.headers() == {"Authorization": "Bearer t-1"}
    clock.advance(2)
    assert await credentials.headers() == {"Authorization": "Bearer t-2"}
    clock.advance(RELOAD_PAUSE_S)
    await credentials.renew()
    assert await credentials.headers() == {"Authorization": "Bearer t-3"}
    assert plugin.runs == 3


async def test_many_requests_start_one_plug_in(plugin: Exec, clock: ManualClock) -> None:
    plugin.gives("t-COUNT", expires_s=clock.wall() + 1)
    credentials = KubeconfigCredentials(plugin.path, clock)
    await credentials.connection()
    clock.advance(60)
    await asyncio.gather(*(credentials.headers() for _ in range(8)))
    await asyncio.gather(*(credentials.renew() for _ in range(8)))
    assert plugin.runs == 2


@pytest.mark.parametrize("answer", ["fail", "", "{}", SECRET, '{"apiVersion":"v2","status":{}}'])
async def test_a_failing_plug_in_keeps_the_old_token_and_says_nothing_it_printed(
    answer: str, plugin: Exec, clock: ManualClock
) -> None:
    plugin.says(answer)
    with pytest.raises(SettingsError) as caught:
        await KubeconfigCredentials(plugin.path, clock).connection()
    assert SECRET not in str(caught.value)
    plugin.gives("good")
    credentials = KubeconfigCredentials(plugin.path, clock)
    await credentials.connection()
    plugin.says(answer)
    await credentials.renew()
    assert await credentials.headers() == {"Authorization": "Bearer good"}


async def test_a_plug_in_that_fails_later_is_said_with_its_words_and_its_end_too(
    plugin: Exec, clock: ManualClock
) -> None:
    plugin.gives("good")
    credentials = KubeconfigCredentials(plugin.path, clock)
    await credentials.connection()
    plugin.says("fail")
    with capture_logs() as lines:
        for _ in range(1 + round(kubeconfig.REPEAT_S / RELOAD_PAUSE_S)):
            clock.advance(RELOAD_PAUSE_S)
            await credentials.renew()
            assert await credentials.headers() == {"Authorization": "Bearer good"}
        plugin.gives("new")
        for _ in range(2):
            clock.advance(RELOAD_PAUSE_S)
            await credentials.renew()
    assert [line["event"] for line in lines] == [
        "credentials_not_renewed", "credentials_not_renewed", "credentials_renewed",
    ]  # fmt: skip
    assert lines[0]["reason"].endswith("exited 3; it said: the session has ended")
    assert await credentials.headers() == {"Authorization": "Bearer new"}


async def test_a_plug_in_that_hangs_is_ended_within_its_limit(
    plugin: Exec, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "LOAD_LIMIT_S", 0.3)
    plugin.says("hang")
    with pytest.raises(SettingsError, match=r"within 0\.3 s"):
        await KubeconfigCredentials(plugin.path, clock).connection()


def make_certificate(folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-days", "2",
         "-subj", "/CN=lab"],
        check=True, capture_output=True,
    )  # fmt: skip


async def test_a_kubeconfig_that_was_rotated_is_read_again_without_a_refusal(
    tmp_path: Path, clock: ManualClock
) -> None:
    make_certificate(tmp_path)
    config = tmp_path / "config"

    def rotate(token: str) -> None:
        data = base64.b64encode((tmp_path / "tls.crt").read_bytes()).decode()
        cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": data}
        write_config(config, {"user": {"token": token}}, **cluster)

    rotate("one")
    credentials = KubeconfigCredentials(str(config), clock)
    first, version = await credentials.connection(), credentials.version()
    assert await credentials.headers() == {"Authorization": "Bearer one"}
    make_certificate(tmp_path)
    rotate("two")
    for _ in range(2):
        clock.advance(LOOK_S)
        credentials.version()
    assert credentials.version() != version
    second = await credentials.connection()
    assert second.identity != first.identity
    assert await credentials.headers() == {"Authorization": "Bearer two"}
    config.write_text("{half")
    for _ in range(2):
        clock.advance(LOOK_S)
        credentials.version()
    with pytest.raises(SettingsError, match="not a readable kubeconfig"):
        await credentials.connection()
    assert await credentials.headers() == {"Authorization": "Bearer two"}
    rotate("three")
    for _ in range(2):
        clock.advance(LOOK_S)
        credentials.version()
    assert (await credentials.connection()).identity == second.identity
    assert await credentials.headers() == {"Authorization": "Bearer three"}


async def test_what_was_rotated_together_with_its_server_is_shown_to_that_server_alone(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = write_config(tmp_path / "config", {"user": {"token": "one", "as": "limited"}})
    credentials = KubeconfigCredentials(path, clock)
    old = (await credentials.connection()).url
    new = "http://127.0.0.1:2"
    write_config(tmp_path / "config", {"user": {"token": "two"}}, server=new)
    credentials.version(fresh=True)
    assert (await credentials.connection()).url == new
    assert await credentials.headers(new) == {"Authorization": "Bearer two"}
    found = await credentials.headers(old)
    assert found == {"Authorization": "Bearer one", "Impersonate-User": "limited"}
    assert await credentials.headers("http://127.0.0.1:3") == {}


async def test_a_kubeconfigs_token_file_is_read_again(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "token").write_text("one")
    path = write_config(tmp_path / "config", {"user": {"tokenFile": "token"}})
    credentials = KubeconfigCredentials(path, clock)
    assert await credentials.headers() == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two")
    clock.advance(REREAD_S)
    assert await credentials.headers() == {"Authorization": "Bearer two"}
    (tmp_path / "token").write_text("three")
    await credentials.renew()
    assert await credentials.headers() == {"Authorization": "Bearer three"}


async def test_a_replaced_client_certificate_is_another_identity(
    tmp_path: Path, clock: ManualClock
) -> None:
    make_certificate(tmp_path)
    authority = tmp_path / "ca.crt"  # stays as it is: what is replaced is ours alone
    authority.write_bytes((tmp_path / "tls.crt").read_bytes())
    files = {
        "client-certificate": str(tmp_path / "tls.crt"),
        "client-key": str(tmp_path / "tls.key"),
    }
    path = write_config(
        tmp_path / "config",
        {"user": files},
        **{
            "server": "https://127.0.0.1:1",
            "certificate-authority": str(authority),
            "tls-server-name": "kubernetes",
        },
    )
    credentials = KubeconfigCredentials(path, clock)
    first = await credentials.connection()
    assert (first.tls is not None, first.server_name) == (True, "kubernetes")
    assert (await credentials.connection()).identity == first.identity
    version = credentials.version()
    make_certificate(tmp_path)
    for _ in range(2):
        clock.advance(LOOK_S)
        credentials.version()
    assert credentials.version() != version
    assert (await credentials.connection()).identity != first.identity
    (tmp_path / "tls.key").write_text("half")
    with pytest.raises(SettingsError, match="certificates for"):
        await credentials.connection()
