"""Credentials from a kubeconfig: token, token file, client certificate, OIDC or exec plug-in."""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidict import CIMultiDict

from reconciler.clock import Clock, parse_utc
from reconciler.errors import SettingsError
from reconciler.kube.bearer import TokenFile, bearer, is_sendable
from reconciler.kube.connection import Connection, connection_of
from reconciler.kube.fields import Fields, read_fields
from reconciler.kube.loaders import Configuration, config
from reconciler.kube.plugin import Credential, plugin_of, run_plugin

EXPIRY_MARGIN_S = 60.0
"""An exec plug-in's token is replaced this long before the end that the plug-in named."""

LOAD_LIMIT_S = 20.0
"""Longest time that loading may take: a plug-in asks a cloud's token service, mostly in 1-3 s."""

RELOAD_PAUSE_S = 5.0
"""Shortest time between two reloads: a server that refuses everything must not start a plug-in for
each request, nor a plug-in that fails."""

_MISSING = re.compile(r"Expected (?:key|object with name) ([\w.-]+) in")


@dataclass(frozen=True, slots=True, repr=False)
class _Loaded:
    configuration: Any
    expires_s: float | None
    fields: Fields

    def headers(self) -> dict[str, str]:
        """Return the header; one that holds two words is `Bearer` or `Basic` and its value."""
        scheme, _, value = (self.configuration.api_key.get("BearerToken") or "").partition(" ")
        value = value.strip()
        return {"Authorization": f"{scheme} {value}"} if is_sendable(value) else {}


class KubeconfigCredentials:
    """A kubeconfig's context, or another account's token file with the same server.

    Args:
        path: One file or several, as KUBECONFIG names them.
        ignored: Told of each field that is set and has no effect, once.
    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        context: str | None = None,
        token_file: Path | None = None,
        ignored: Callable[[str], None] = lambda field: None,
    ) -> None:
        self._path = path
        self._context = context
        self._clock = clock
        self._ignored = ignored
        self._told: set[str] = set()
        self._override = TokenFile(token_file, clock) if token_file else None
        self._loaded: _Loaded | None = None
        self._lock = asyncio.Lock()
        self._reloaded_at: float | None = None

    async def connection(self) -> Connection:
        return connection_of((await self._first()).configuration)

    async def headers(self) -> Mapping[str, str]:
        loaded = await self._first()
        if self._override is not None:
            own = bearer(self._override.value())
        else:
            expires_s = loaded.expires_s
            if expires_s is not None and self._clock.wall() > expires_s - EXPIRY_MARGIN_S:
                await self._reload()
                loaded = self._loaded or loaded
            own = loaded.headers()
        # Another account's token takes the user's place, but lifts no restriction of theirs.
        return CIMultiDict([*own.items(), *loaded.fields.impersonation])

    async def renew(self) -> None:
        """Load the file anew, or join who just did; a failure leaves what was loaded in place."""
        if self._override is not None:
            self._override.value(fresh=True)
        await self._reload()

    async def _first(self) -> _Loaded:
        if self._loaded is None:
            async with self._lock:
                if self._loaded is None:
                    self._loaded = await self._load()
        return self._loaded

    async def _load(self) -> _Loaded:
        loaded = await _load(self._path, self._context)
        for field in loaded.fields.ignored:
            if field not in self._told:
                self._told.add(field)
                self._ignored(field)
        return loaded

    async def _reload(self) -> None:
        async with self._lock:
            last_at = self._reloaded_at
            if last_at is not None and self._clock.monotonic() - last_at < RELOAD_PAUSE_S:
                return
            try:
                self._loaded = await self._load()
            except SettingsError:
                if self._loaded is None:
                    raise
            self._reloaded_at = self._clock.monotonic()


class _Loader(config.kube_config.KubeConfigLoader):  # type: ignore[misc]  # no types upstream
    """kubernetes-asyncio's loader with our plug-in runner, and with contexts that name no user."""

    expires_s: float | None = None
    fields: Fields
    _user: Any

    def __init__(self, merged: Any, context: str | None) -> None:
        super().__init__(config_dict=merged, config_base_path=None, active_context=context)
        if self._user is None:
            self._user = config.kube_config.ConfigNode("no user", {})
        context = self._current_context["context"]
        self.fields = read_fields(*map(_plain, (context, self._cluster, self._user)))

    async def load_from_exec_plugin(self) -> bool:
        given = await run_plugin(plugin_of(self._user["exec"].value))
        if given.token:
            self.token = f"Bearer {given.token}"
        if given.client_certificate_data:
            self.cert_file = _as_file(given, "client_certificate_data")
            self.key_file = _as_file(given, "client_key_data")
        self.expires_s = parse_utc(given.expiration_timestamp or "")
        return True


def _plain(section: Any) -> Any:
    """Return a section as the file has it, without the loader's node around it."""
    return section.value if isinstance(section, config.kube_config.ConfigNode) else section


def _as_file(given: Credential, name: str) -> str:
    data = {"it-data": getattr(given, name)}
    path: str = config.kube_config.FileOrData(data, "it", base64_file_content=False).as_file()
    return path


async def _load(path: str, context: str | None) -> _Loaded:
    """Load `path`; raises `SettingsError` that says what is wrong in our words.

    The loader's own are not repeated: they quote the section that they are about, tokens included.
    Its loggers say the same things, so they are silenced.
    """
    logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL + 1)
    if not any_file(path):
        raise SettingsError(f"KUBECONFIG {path}: no such file")
    loaded = Configuration()
    loaded.host = ""  # its default is this machine
    try:
        async with asyncio.timeout(LOAD_LIMIT_S):
            loader = _Loader(config.kube_config.KubeConfigMerger(path).config, context)
            await loader.load_and_set(loaded)
        if not loaded.host:
            raise SettingsError("its cluster names no server")
    except Exception as error:  # the loader raises whatever a file's shape makes it stumble over
        problem = _problem(error)
    else:
        return _Loaded(loaded, loader.expires_s, loader.fields)
    raise SettingsError(f"KUBECONFIG {path}: {problem}")


def any_file(paths: str) -> bool:
    """Tell whether at least one of the files that KUBECONFIG names is there."""
    return any(Path(one).expanduser().is_file() for one in paths.split(os.pathsep) if one)


def _problem(error: Exception) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"its credentials did not come within {LOAD_LIMIT_S:g} s"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    if missing := _MISSING.search(text):
        return f"it has no {missing[1]}"
    if text.startswith(("File does not exists: ", "oidc: ")):
        return text.splitlines()[0]
    return f"not a readable kubeconfig ({type(error).__name__})"
