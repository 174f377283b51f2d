"""Credentials from a kubeconfig: token, token file, client certificate or exec plug-in."""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import yaml
from multidict import CIMultiDict

from reconciler.clock import Clock, EpochTime, Instant, parse_utc
from reconciler.errors import SettingsError
from reconciler.kube.auth._kubernetes_asyncio import Configuration, load
from reconciler.kube.auth.connection import connection_of, trust_of
from reconciler.kube.auth.exec_plugin import Credential, cluster_info, plugin_of, run_plugin
from reconciler.kube.auth.kubeconfig_fields import Fields, read_fields
from reconciler.kube.auth.kubeconfig_merge import ShapeError, merge, without_idle_plugin
from reconciler.kube.auth.token_file import TokenFile, bearer, is_sendable
from reconciler.net.client_pool import Connection
from reconciler.net.client_session import Trust
from reconciler.net.file_rotation import FileRotation

_kube_config: Any = load("kube_config")

EXPIRY_MARGIN_S = 60.0
"""An exec plug-in's token is replaced this long before the expiry that the plug-in named."""

LOAD_LIMIT_S = 20.0
"""Longest time that loading may take: a plug-in asks a cloud's token service, mostly in 1-3 s."""

PLUGIN_END_S = 1.0
"""Time that the end of a plug-in may take after its time limit."""

RELOAD_PAUSE_S = 5.0
"""Shortest time between two reloads: a server that refuses everything, or a plug-in that fails,
must not cause a run of the plug-in for each request."""

REPEAT_S = 60.0
"""Time between two log lines while a plug-in continues to fail."""

log = structlog.get_logger()

_MISSING = re.compile(r"Expected (?:key|object with name) ([\w.-]+) in")


@dataclass(frozen=True, slots=True, repr=False)
class _Loaded:
    configuration: Any
    trust: Trust
    named: tuple[Path, ...]
    token_file: TokenFile | None
    expires_s: EpochTime | None
    fields: Fields

    def headers(self) -> dict[str, str]:
        """Return the header; one that holds two words is `Bearer` or `Basic` and its value.

        A token file comes before a token; the token is used while the file holds none.
        """
        if self.token_file is not None and (found := bearer(self.token_file.value())):
            return found
        scheme, _, value = (self.configuration.api_key.get("BearerToken") or "").partition(" ")
        value = value.strip()
        return {"Authorization": f"{scheme} {value}"} if is_sendable(value) else {}

    @property
    def url(self) -> str:
        """The server's URL, in the form of `connection_of`."""
        return str(self.configuration.host).rstrip("/")


class KubeconfigCredentials:
    """A kubeconfig's context, or another account's token file with the same server.

    Args:
        path: One file or several, as KUBECONFIG names them.
        ignored: Called once for each field that is set and has no effect.
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
        self._reported: set[str] = set()
        self._override = TokenFile(token_file, clock) if token_file else None
        self._loaded: _Loaded | None = None
        self._previous: _Loaded | None = None
        self._lock = asyncio.Lock()
        self._reloaded_at: Instant | None = None
        self._config = FileRotation(self._paths, clock)
        self._named = FileRotation(lambda: self._loaded.named if self._loaded else (), clock)
        self._version = ""
        self._tried_version = ""
        self._last_problem = ""
        self._is_connected = False
        self._logged_at: Instant | None = None

    def version(self, *, fresh: bool = False) -> str:
        return self._config.version(fresh=fresh) + self._named.version(fresh=fresh)

    async def connection(self) -> Connection:
        """Return the server's address and TLS, from the files as they are now.

        Raises:
            SettingsError: They cannot be used, or a plug-in that they name gave no credential.
        """
        loaded = await self._first()
        if self._version != self._config.version():
            loaded = await self._reload()
        if self._version != self._config.version():
            raise SettingsError(self._last_problem)
        found = connection_of(loaded.configuration, loaded.trust, lenient=not self._is_connected)
        self._is_connected = True
        return found

    async def headers(self, url: str = "") -> Mapping[str, str]:
        """Return the headers of the files as loaded last. Only `connection` reads changed files, so
        that no request waits for a plug-in that they name."""
        loaded = await self._first()
        if url and url != loaded.url:
            if self._previous is None or url != self._previous.url:
                return {}
            loaded = self._previous
        elif self._override is None and self._is_about_to_expire(loaded):
            loaded = await self._reload()
        own = loaded.headers() if self._override is None else bearer(self._override.value())
        # Another account's token replaces the user's; the impersonation of the user stays.
        return CIMultiDict([*own.items(), *loaded.fields.impersonation])

    def _is_about_to_expire(self, loaded: _Loaded) -> bool:
        expires_s = loaded.expires_s
        return expires_s is not None and self._clock.wall() > expires_s - EXPIRY_MARGIN_S

    async def renew(self) -> None:
        """Load the file again, unless that was just done; a failure keeps the loaded state."""
        if self._override is not None:
            self._override.value(fresh=True)
        loaded = await self._reload()
        if loaded.token_file is not None:
            loaded.token_file.value(fresh=True)

    def _paths(self) -> list[Path]:
        return [Path(one).expanduser() for one in self._path.split(os.pathsep) if one]

    async def _first(self) -> _Loaded:
        """Return the loaded state; raises `SettingsError` if the first load fails."""
        if self._loaded is None:
            async with self._lock:
                if self._loaded is None:
                    return await self._load(self._config.version(fresh=True))
        return self._loaded

    async def _load(self, version: str) -> _Loaded:
        """Load the files of a version; the caller holds the lock."""
        loaded = await _load(self._path, self._context, self._clock)
        if self._loaded is not None and self._loaded.url != loaded.url:
            self._previous = self._loaded
        self._loaded, self._version = loaded, version
        for field in loaded.fields.ignored:
            if field not in self._reported:
                self._reported.add(field)
                self._ignored(field)
        return loaded

    async def _reload(self) -> _Loaded:
        """Load again, but the same version only every `RELOAD_PAUSE_S`; a failure changes nothing.

        Raises:
            SettingsError: Nothing was loaded before.
        """
        async with self._lock:
            version, now_at = self._config.version(), self._clock.monotonic()
            last_at = self._reloaded_at
            is_soon = last_at is not None and now_at - last_at < RELOAD_PAUSE_S
            if is_soon and version == self._tried_version and self._loaded is not None:
                return self._loaded
            self._tried_version = version
            try:
                loaded = await self._load(version)
            except SettingsError as error:
                self._last_problem = str(error)
                if self._loaded is None:
                    raise
                if version == self._version:  # otherwise `connection` raises it
                    self._log_not_renewed(str(error))
                return self._loaded
            else:
                self._log_renewed()
                return loaded
            finally:
                self._reloaded_at = self._clock.monotonic()

    def _log_not_renewed(self, reason: str) -> None:
        """Log that a plug-in gave no new credential: at once, and then every `REPEAT_S`."""
        now_at = self._clock.monotonic()
        if self._logged_at is None or now_at - self._logged_at >= REPEAT_S:
            self._logged_at = now_at
            log.warning("credentials_not_renewed", peer="kube", reason=reason)

    def _log_renewed(self) -> None:
        if self._logged_at is not None:
            self._logged_at = None
            log.info("credentials_renewed", peer="kube")


class _Loader(_kube_config.KubeConfigLoader):  # type: ignore[misc]  # no types upstream
    """kubernetes-asyncio's loader with our plug-in runner, and with contexts that name no user."""

    expires_s: EpochTime | None = None
    fields: Fields
    _user: Any

    def __init__(self, merged: dict[str, Any], context: str | None) -> None:
        super().__init__(config_dict=merged, config_base_path=None, active_context=context)
        named = self._current_context["context"].safe_get("user")
        if named and self._user is None:
            raise SettingsError("its context names a user that is not there")
        if not self._plain_cluster.get("server"):
            raise SettingsError("its cluster names no server")
        user = {} if self._user is None else _plain(self._user)
        self.fields = read_fields(
            _plain(self._current_context["context"]), self._plain_cluster, user
        )
        self._user = _kube_config.ConfigNode("user", without_idle_plugin(user))

    @property
    def _plain_cluster(self) -> dict[str, Any]:
        found: dict[str, Any] = _plain(self._cluster)
        return found

    def loaded(self, configuration: Any, clock: Clock) -> _Loaded:
        """Return what a configuration holds after `load_and_set`, and the files that it names."""
        return _Loaded(
            configuration,
            trust_of(configuration),
            self._named_files(configuration),
            self._token_file(clock),
            self.expires_s,
            self.fields,
        )

    def _named_files(self, loaded: Any) -> tuple[Path, ...]:
        """Return the files of certificates and keys that the kubeconfig names, not contains."""
        if not loaded.host.startswith("https:"):
            return ()
        cluster, user = self._plain_cluster, _plain(self._user)
        named: list[Path] = []
        if not loaded.ssl_ca_cert:
            named += Trust().paths()
        elif "certificate-authority-data" not in cluster:
            named.append(Path(loaded.ssl_ca_cert))
        for field, file in (
            ("client-certificate", loaded.cert_file),
            ("client-key", loaded.key_file),
        ):
            if file and field in user and f"{field}-data" not in user:
                named.append(Path(file))
        return tuple(named)

    def _token_file(self, clock: Clock) -> TokenFile | None:
        """Return the user's token file, if no other credential comes before it."""
        user = _plain(self._user)
        if not user.get("tokenFile") or "exec" in user or "auth-provider" in user:
            return None
        return TokenFile(Path(user["tokenFile"]), clock)

    async def load_from_exec_plugin(self) -> bool:
        plugin = plugin_of(self._user["exec"].value)
        cluster = cluster_info(self._plain_cluster) if plugin.provide_cluster_info else None
        given = await run_plugin(plugin, cluster=cluster, limit_s=LOAD_LIMIT_S)
        if given.token:
            self.token = f"Bearer {given.token}"
        if given.client_certificate_data:
            self.cert_file = _as_file(given, "client_certificate_data")
            self.key_file = _as_file(given, "client_key_data")
        self.expires_s = parse_utc(given.expiration_timestamp or "")
        return True


def _plain(section: Any) -> Any:
    """Return a section as the file has it, without the loader's wrapper."""
    return section.value if isinstance(section, _kube_config.ConfigNode) else section


def _as_file(given: Credential, name: str) -> str:
    data = {"it-data": getattr(given, name)}
    path: str = _kube_config.FileOrData(data, "it", base64_file_content=False).as_file()
    return path


async def _load(path: str, context: str | None, clock: Clock) -> _Loaded:
    """Load `path`; raises `SettingsError` with a message of ours.

    The loader's own messages are not used: they quote the section, tokens included. Its loggers
    write the same messages, so they are disabled.
    """
    logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL + 1)
    if not any_file(path):
        raise SettingsError(f"KUBECONFIG {path}: no such file")
    loaded = Configuration()
    loaded.host = ""  # its default is localhost
    try:
        # The plug-in's own time limit ends first: its error holds what the plug-in wrote.
        async with asyncio.timeout(LOAD_LIMIT_S + PLUGIN_END_S):
            loader = _Loader(read_files(path), context)
            await loader.load_and_set(loaded)
        return loader.loaded(loaded, clock)
    except Exception as error:  # a malformed file may make the loader raise any exception
        problem = problem_of(error)
    raise SettingsError(f"KUBECONFIG {path}: {problem}")


def read_files(paths: str) -> dict[str, Any]:
    """Return the merged content of the files, see `merge`; missing files are left out.

    Args:
        paths: One file or several, as KUBECONFIG names them.
    Raises:
        OSError: One cannot be read.
        ShapeError: One is no kubeconfig; the message names it, and quotes nothing of it.
    """
    found: list[tuple[str, Any]] = []
    for path in paths.split(os.pathsep):
        file = Path(path).expanduser()
        if path and file.exists():
            found.append((str(file), _parsed(file)))
    return merge(found)


def _parsed(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # its text may quote a token
        problem = type(error).__name__
    raise ShapeError(f"{file} is no YAML: {problem}")


def any_file(paths: str) -> bool:
    """Return whether at least one of the files that KUBECONFIG names exists."""
    return any(Path(one).expanduser().is_file() for one in paths.split(os.pathsep) if one)


def problem_of(error: Exception) -> str:
    """Return a message for an error of loading; the loader's own message may quote tokens."""
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"its credentials did not come within {LOAD_LIMIT_S:g} s"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ShapeError):
        return f"not a readable kubeconfig ({error})"
    text = str(error)
    if missing := _MISSING.search(text):
        return f"it has no {missing[1]}"
    if text.startswith("File does not exists: "):
        return text.splitlines()[0]
    return f"not a readable kubeconfig ({type(error).__name__})"
