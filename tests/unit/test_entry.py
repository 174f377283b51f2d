"""What happens before the command line is imported, and the further duties of process 1."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from reconciler.kube.auth.credentials import kubeconfig_path
from tests.lab.tls import make_certificate

LIMIT_S = 60.0


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *words],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


SIGNALLED = """
    import os, signal, sys
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name in ("reconciler.cli.run", "reconciler.cli.main"):
                os.kill(os.getpid(), signal.Signals[sys.argv.pop()])
                raise SystemExit("the signal was lost")
    sys.meta_path.insert(0, Finder())
    sys.argv = ["reconciler", *sys.argv[1:]]
    from reconciler.entry import main
    main()
"""


@pytest.mark.parametrize("words", [("run", "SIGTERM"), ("run", "SIGINT"), ("demo", "SIGINT")])
def test_a_signal_during_the_imports_ends_the_program(words: tuple[str, str]) -> None:
    ended = run(SIGNALLED, *words)
    assert (ended.returncode, ended.stderr) == (0, "")


DEFECT = """
    import sys
    from reconciler.cli import main, status

    def crash(*_, **__):
        raise ZeroDivisionError("a defect of ours")

    status.run_status = crash
    sys.argv = ["reconciler", "status", "-A"]
    main.main()
"""


def test_a_defect_has_an_exit_code_that_says_nothing_of_tokens() -> None:
    ended = run(DEFECT)
    assert (ended.returncode, ended.stdout) == (70, "")
    assert ended.stderr.endswith("ZeroDivisionError: a defect of ours\n")


LEAN = """
    import sys
    from reconciler import entry
    entry._import_structlog_alone()
    import reconciler.cli.run, reconciler.settings, reconciler.app.main
    UNUSED = {"rich", "urllib3", "grpc", "typer", "yaml"}
    print(sorted({name.partition(".")[0] for name in sys.modules} & UNUSED))
    import rich.table, urllib3.util
    assert urllib3.PoolManager
"""


def test_a_run_imports_no_library_that_only_other_commands_need() -> None:
    ended = run(LEAN)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


def test_the_command_run_alone_starts_without_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_WORKERS", "many")
    script = """
        import sys
        sys.modules["typer"] = None  # an import of it fails
        sys.argv[0] = "reconciler"
        from reconciler.entry import main
        main()
    """
    ended = run(script, "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("reconciler: RECONCILER_WORKERS ")
    assert "typer" in run(script, "run", "--help").stderr


BARE = """
    import sys
    from reconciler import entry
    entry._import_aiohttp_without_cas()
    import asyncio, aiohttp.connector, ssl
    from reconciler.net.client_pool import ClientPool, Connection
    from reconciler.net.client_session import Trust

    class Source:
        def __init__(self, url, tls, proxy):
            self._connection = Connection(url, tls, proxy, "")
        def version(self, *, fresh=False):
            return ""
        async def connection(self):
            return self._connection

    async def cas(*connection):
        async with ClientPool(Source(*connection), what="", connections=1) as pool:
            client = await pool.open()
            return len(client.session.connector._ssl.get_ca_certs())

    print(len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()))
    print(asyncio.run(cas("https://a.example", Trust().context(), None)))
    print(asyncio.run(cas("http://a.example", None, "https://proxy.example:3128")))
"""


def test_each_connection_of_a_run_has_the_systems_cas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, _ = make_certificate(tmp_path, name="DNS:public.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    ended = run(BARE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n1\n1\n", "")


REAPED = """
    import ctypes, os, subprocess, sys, time
    PR_SET_CHILD_SUBREAPER = 36
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    from reconciler.kube.auth.child_processes import OrphanReaper, _zombies
    # The shell ends before its own child, which becomes ours.
    subprocess.run(["sh", "-c", "(read line < /dev/null; true) & exit 0"], check=True)
    deadline_at = time.monotonic() + 30
    while not _zombies():
        assert time.monotonic() < deadline_at
    reaper = OrphanReaper()
    assert reaper.reap_once() == 0, "it may be a child that is waited for right now"
    assert reaper.reap_once() == 1
    assert not _zombies()
    assert reaper.reap_once() == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")
def test_what_an_ended_plug_in_had_started_does_not_stay_as_a_zombie() -> None:
    ended = run(REAPED)
    assert ended.returncode == 0, ended.stderr


def test_a_user_without_a_home_has_no_kubeconfig_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert kubeconfig_path("") == ""
    assert kubeconfig_path("/some/config") == "/some/config"


@pytest.mark.parametrize("name", ["RECONCILER_REPLICA", "OIDC_CLIENT_SECRET", "AMBIENT_API_TOKEN"])
def test_bytes_that_are_no_text_in_a_variable_are_named_in_one_line(name: str) -> None:
    environment = {key: value for key, value in os.environb.items() if b"OIDC" not in key}
    environment |= {name.encode(): b"obviously-fake-\xff-bytes-of-a-token"}
    ended = subprocess.run(
        [sys.executable, "-c", "from reconciler.entry import main; main()", "run"],
        capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment,
    )  # fmt: skip
    assert ended.returncode == 2
    [line] = [line for line in ended.stderr.splitlines() if name in line]
    assert line.startswith(f"reconciler: {name} ")
    assert "Traceback" not in ended.stderr
    assert "obviously-fake" not in ended.stderr
