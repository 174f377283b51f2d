"""Runs the exec credential plug-in of a kubeconfig, within limits, and reads its answer.

kubernetes-asyncio's own runner has no time limit, lets the plug-in wait for input from our
terminal, and leaves it running when it is cancelled. Source: client-go,
plugin/pkg/client/auth/exec.
"""

import asyncio
import base64
import binascii
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from reconciler.errors import SettingsError
from reconciler.kube.auth.child_processes import ChildPipe
from reconciler.kube.auth.redaction import shown_output

MAX_OUTPUT_BYTES = 1024 * 1024
"""Longest answer that is read: a token or a certificate with its key are some KiB."""

EXTENSION = "client.authentication.k8s.io/exec"
"""The name of the cluster's extension that is passed to the plug-in."""

TAIL_BYTES = 4096
"""Last bytes of its stderr that are kept."""


class Variable(msgspec.Struct):
    name: str
    value: str | None = None


class Plugin(msgspec.Struct, rename="camel"):
    """The `exec` section of a kubeconfig's user."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None

    @property
    def title(self) -> str:
        return f"exec plug-in {os.path.basename(self.command)}"


class Credential(msgspec.Struct, rename="camel"):
    """The `status` of an ExecCredential; its repr shows no value."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None

    def __repr__(self) -> str:
        return "Credential(**)"


class _Answer(msgspec.Struct, rename="camel"):
    api_version: str
    status: Credential

    def __repr__(self) -> str:
        return "_Answer(**)"


def plugin_of(section: Any) -> Plugin:
    """Read an `exec` section; raises `SettingsError` for one that names no command."""
    try:
        return msgspec.convert(section, Plugin, strict=False)
    except msgspec.ValidationError:
        pass
    raise SettingsError("its exec section lacks a readable command or apiVersion")


def cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the cluster for a plug-in (`spec.cluster` of an ExecCredential).

    Args:
        cluster: The cluster's section of the kubeconfig, its paths absolute.

    Raises:
        SettingsError: Its CA cannot be read.
    Source: client-go, `ConfigToExecCluster`.
    """
    found: dict[str, Any] = {"server": cluster.get("server")}
    for field in (
        "tls-server-name",
        "insecure-skip-tls-verify",
        "proxy-url",
        "disable-compression",
    ):
        if cluster.get(field):
            found[field] = cluster[field]
    if authority := _authority(cluster):
        found["certificate-authority-data"] = base64.b64encode(authority).decode()
    config = None
    for extension in cluster.get("extensions") or ():
        if isinstance(extension, Mapping) and extension.get("name") == EXTENSION:
            config = extension.get("extension")
    return found | {"config": config}


def _authority(cluster: Mapping[str, Any]) -> bytes:
    """Return the PEM of the cluster's CAs, b"" for the system's."""
    if data := cluster.get("certificate-authority-data"):
        try:
            return base64.b64decode(data)
        except (binascii.Error, ValueError, TypeError):
            raise SettingsError("its certificate-authority-data is no base64") from None
    file = cluster.get("certificate-authority")
    try:
        return Path(str(file)).read_bytes() if file else b""
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None


async def run_plugin(
    plugin: Plugin, *, cluster: Mapping[str, Any] | None = None, limit_s: float
) -> Credential:
    """Run `plugin` once and return its credential.

    An error's message holds the last words of its stderr, without what looks like a secret. It
    holds nothing of its stdout, which carries the credential.

    Args:
        cluster: As returned by `cluster_info`, for a plug-in that requests it.
        limit_s: Time limit, seconds.

    Raises:
        SettingsError: It cannot be started, failed, takes too long, or gave no credential.
    Cancel: The plug-in and the processes that it started are killed.
    """
    with (
        ChildPipe(MAX_OUTPUT_BYTES) as stdout,
        ChildPipe(TAIL_BYTES, last=True) as stderr,
    ):
        try:
            async with asyncio.timeout(limit_s):
                code = await _run(plugin, cluster, stdout, stderr)
        except TimeoutError:
            problem = f"its credentials did not come within {limit_s:g} s from {plugin.title}"
            raise SettingsError(problem + _stderr_text(stderr)) from None
        output, words = stdout.kept(), _stderr_text(stderr)
    if stdout.is_cut:
        raise SettingsError(f"{plugin.title} answered with more than {MAX_OUTPUT_BYTES} bytes")
    if code:
        raise SettingsError(f"{plugin.title} exited {code}{words or '; run it by hand to see why'}")
    credential = _credential(plugin, output, words)
    if not credential.token and not (
        credential.client_certificate_data and credential.client_key_data
    ):
        problem = f"{plugin.title} gave neither a token nor a certificate with its key"
        raise SettingsError(problem + words)
    return credential


def _stderr_text(stderr: ChildPipe) -> str:
    kept = stderr.kept()
    words = shown_output(kept, is_cut=stderr.is_cut)
    return f"; it said: {words}" if words else ""


def _credential(plugin: Plugin, output: bytes, words: str) -> Credential:
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if answer is None or answer.api_version != plugin.api_version:
        problem = f"{plugin.title} did not answer with an {plugin.api_version} status"
        raise SettingsError(problem + words)
    return answer.status


async def _run(
    plugin: Plugin, cluster: Mapping[str, Any] | None, stdout: ChildPipe, stderr: ChildPipe
) -> int:
    """Return the exit code, after it has ended or was killed because `stdout` is full."""
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *(plugin.args or ()),
            env=_environment(plugin, cluster),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout.writer,
            stderr=stderr.writer,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = shown_output((plugin.install_hint or "").encode())
        raise SettingsError(
            f"{plugin.title} cannot be started: {reason}{f'; {hint}' if hint else ''}"
        ) from None
    stdout.close_writer()
    stderr.close_writer()
    waits = [asyncio.create_task(process.wait()), asyncio.create_task(stdout.is_full.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0


def _environment(plugin: Plugin, cluster: Mapping[str, Any] | None) -> Mapping[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info and cluster is not None:
        spec["cluster"] = cluster
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    return {
        **os.environ,
        **{variable.name: variable.value or "" for variable in plugin.env or ()},
        "KUBERNETES_EXEC_INFO": json.dumps(info, default=str),
    }
