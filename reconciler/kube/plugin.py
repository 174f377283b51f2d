"""The exec credential plug-in of a kubeconfig: run it, within a limit, and read its answer.

kubernetes-asyncio's own runner waits for ever, lets the plug-in wait for our terminal, and leaves
it running when it is cancelled.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from reconciler.errors import SettingsError


class Variable(msgspec.Struct):
    name: str
    value: str


class Plugin(msgspec.Struct, rename="camel"):
    """The `exec` section of a kubeconfig's user."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[Variable] | None = None

    @property
    def title(self) -> str:
        return f"exec plug-in {os.path.basename(self.command)}"


class Credential(msgspec.Struct, rename="camel"):
    """The `status` of an ExecCredential; its repr says nothing."""

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


async def run_plugin(plugin: Plugin) -> Credential:
    """Run `plugin` once and return what it gave.

    What it writes to stderr is dropped: nobody knows what it holds.

    Raises:
        SettingsError: It cannot be started, failed, or gave nothing that can be used.
    Cancel: The plug-in, and what it started, has been killed.
    """
    code, output = await _run(plugin)
    if code:
        raise SettingsError(f"{plugin.title} exited {code}; run it by hand to see why")
    credential = _credential(plugin, output)
    if not credential.token and not (
        credential.client_certificate_data and credential.client_key_data
    ):
        raise SettingsError(f"{plugin.title} gave neither a token nor a certificate with its key")
    return credential


def _credential(plugin: Plugin, output: bytes) -> Credential:
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if answer is None or answer.api_version != plugin.api_version:
        raise SettingsError(f"{plugin.title} did not answer with an {plugin.api_version} status")
    return answer.status


async def _run(plugin: Plugin) -> tuple[int, bytes]:
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *(plugin.args or ()),
            env=_environment(plugin),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{plugin.title} cannot be started: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output


def _environment(plugin: Plugin) -> Mapping[str, str]:
    info = {
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    return {
        **os.environ,
        **{variable.name: variable.value for variable in plugin.env or ()},
        "KUBERNETES_EXEC_INFO": json.dumps(info),
    }
