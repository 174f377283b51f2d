"""All settings with type, unit, default and reason; read from the environment once at the start.

The replaced loop's variables keep their names and meaning; ours begin with RECONCILER_. An empty
value counts as unset. A secret value may come from a file instead (NAME_FILE), which is read again
when it changes.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl

from pydantic import (
    AfterValidator,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from reconciler.errors import SettingsError
from reconciler.naming import ALL_SESSIONS, Names, Shard, is_namespace
from reconciler.net.urls import url_problem

PREFIX = "RECONCILER_"

_SERVICE_LINK = re.compile(r"RECONCILER(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")
"""Variables that a kubelet adds for a Service of that name.

Source: Kubernetes, "Accessing the Service", environment variables.
"""

_LEVELS = {
    "trace": "debug", "-1": "debug", "0": "debug", "1": "info", "2": "warning", "warn": "warning",
    "3": "error", "4": "error", "fatal": "error", "5": "error", "panic": "error", "6": "error",
    "7": "error", "disabled": "error",
}  # fmt: skip
"""The replaced loop's other names of log levels. Errors are logged at every level.

Source: zerolog `ParseLevel`.
"""

FROM_PLATFORM = "@platform"
"""As a namespace: those of the platform's projects. It is no valid name of a namespace."""


MAX_SHARDS = 16
"""Each shard may have a request at the platform, of which each takes two connections of the
platform's 50 to its database: more shards would leave too few for the runners."""

TRACE_ID = "{trace_id}"

_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)

_FORM_FIELD = re.compile(r"[-._~A-Za-z0-9]+")

_OWN_FORM_FIELDS = frozenset(
    {"grant_type", "client_id", "client_secret", "scope", "audience", "resource"}
)
"""Fields of a token request that another setting decides."""


def _http_url(value: str) -> str:
    """Validate a URL, unchanged: some token endpoints have a trailing slash or a query."""
    if problem := url_problem(value, query=True):
        raise ValueError(problem)
    return value


def _base_url(value: str) -> str:
    """Validate a URL to which paths are appended, so that it can have no query."""
    if problem := url_problem(value):
        raise ValueError(problem)
    return value.rstrip("/")


def _trace_url(value: str) -> str:
    """Validate a URL in which `TRACE_ID` stands for a trace's ID."""
    if TRACE_ID not in value:
        raise ValueError(f"must hold {TRACE_ID}, which stands for a trace's ID")
    return value


def _form(value: Any) -> Any:
    """Read `name=value&name=value`, form-encoded, as pairs in their order."""
    if not isinstance(value, str):
        return value
    try:
        pairs = parse_qsl(value, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError("must be form-encoded: name=value&name=value") from None
    for name, _ in pairs:
        if not _FORM_FIELD.fullmatch(name):
            raise ValueError("must hold names of form fields")
        if name in _OWN_FORM_FIELDS:
            raise ValueError(f"must not hold {name}, which another setting decides")
    return pairs


def _listen_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT or :PORT, with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        if not _is_ipv6(host[1:-1]):
            raise ValueError("must hold an IPv6 address between its brackets")
    elif ":" in host:
        raise ValueError("must have an IPv6 address in brackets: [::1]:8080")
    return value


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _mounted_file(value: Path) -> Path:
    """Accept a file that exists or may come later: a Secret that is made after its pod."""
    if not value.is_file() and not value.parent.is_dir():
        raise ValueError(f"names a file in a folder that is not there: {value}")
    return value


def _split(value: Any) -> Any:
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


def _namespaces(names: list[str]) -> list[str]:
    wrong = [name for name in names if name != FROM_PLATFORM and not is_namespace(name)]
    if wrong:
        raise ValueError(f"must hold names of namespaces or {FROM_PLATFORM}; {wrong[0]!r} is none")
    return list(dict.fromkeys(names))


def parse_shard(value: str) -> Shard:
    """Read `i/n`; raises ValueError."""
    if (found := _SHARD.fullmatch(value.strip())) is None:
        raise ValueError("must be i/n: 0/3 is the first of three shards")
    shard = Shard(int(found[1]), int(found[2]))
    if not 1 <= shard.count <= MAX_SHARDS:
        raise ValueError(f"must be i/n with n from 1 to {MAX_SHARDS}")
    if shard.index >= shard.count:
        last = Shard(shard.count - 1, shard.count)
        raise ValueError(f"must count the shards from 0: the last one is {last}")
    return shard


def _matches(pattern: str, form: str) -> AfterValidator:
    """Return a validator of text; pydantic's own `pattern` would answer with the expression."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"must be {form}")
        return value

    return AfterValidator(check)


HttpUrl = Annotated[str, AfterValidator(_http_url)]
BaseUrl = Annotated[HttpUrl, AfterValidator(_base_url)]
TraceUrl = Annotated[HttpUrl, AfterValidator(_trace_url)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]
MountedFile = Annotated[Path, AfterValidator(_mounted_file)]
FormFields = Annotated[list[tuple[str, str]], BeforeValidator(_form)]
ShardSetting = Annotated[
    Shard,
    BeforeValidator(lambda value: parse_shard(value) if isinstance(value, str) else value),
]
Namespaces = Annotated[list[str], BeforeValidator(_split), AfterValidator(_namespaces)]
SecretPattern = Annotated[
    str,
    _matches(r"[a-z0-9-]*\{id\}[a-z0-9-]*", "{id} among lower-case letters, digits and dashes"),
]
SecretKey = Annotated[str, _matches(r"[-._a-zA-Z0-9]+", "letters, digits, '-', '_' and '.'")]
ObjectName = Annotated[
    str,
    _matches(
        r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
        "lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    ),
]
Uid = Annotated[str, _matches(r"[-0-9a-zA-Z]*", "letters, digits and dashes")]


class Settings(BaseModel):
    """The settings of `reconciler run`; see each field for unit and reason."""

    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: f"{PREFIX}{name.upper()}"),
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    api_server_url: BaseUrl = Field(
        "http://localhost:8000",
        validation_alias="AMBIENT_API_SERVER_URL",
        description="The platform's REST API.",
    )
    api_token: SecretStr | None = Field(
        None,
        validation_alias="AMBIENT_API_TOKEN",
        description="A static token for the platform and the runners; OIDC wins over it.",
    )
    api_token_file: MountedFile | None = Field(
        None,
        validation_alias="AMBIENT_API_TOKEN_FILE",
        description="The same from a file, which wins over the value and is read every 5 s: the"
        " platform and every session get what it holds; while it holds no token, the last one"
        " stays.",
    )
    oidc_token_url: HttpUrl | None = Field(
        None,
        validation_alias="OIDC_TOKEN_URL",
        description="The issuer's token endpoint, taken as it is; required with client"
        " credentials. It has no default, which would send them to a foreign issuer.",
    )
    oidc_client_id: str = Field("", validation_alias="OIDC_CLIENT_ID")
    oidc_client_id_file: MountedFile | None = Field(None, validation_alias="OIDC_CLIENT_ID_FILE")
    oidc_client_secret: SecretStr | None = Field(None, validation_alias="OIDC_CLIENT_SECRET")
    oidc_client_secret_file: MountedFile | None = Field(
        None, validation_alias="OIDC_CLIENT_SECRET_FILE"
    )
    oidc_scope: str = Field(
        "",
        description="`scope` of the token request, names by spaces; none = the issuer's default."
        " Entra ID and Okta require one.",
    )
    oidc_audience: str = Field(
        "", description="`audience` of the token request; Auth0 requires one."
    )
    oidc_resource: str = Field("", description="`resource` of the token request, a URI (RFC 8707).")
    oidc_form: FormFields = Field(
        [],
        description="Further fields of the token request, form-encoded: name=value&name=value.",
    )
    kubeconfig: str = Field(
        "",
        validation_alias="KUBECONFIG",
        description="One file or several, merged as kubectl does; else ~/.kube/config, else the"
        " pod's service account.",
    )
    platform_mode: Literal["standard", "mpp"] = Field(
        "standard",
        validation_alias="PLATFORM_MODE",
        description="How a project's namespace is named.",
    )
    project_kube_token_file: MountedFile | None = Field(
        None,
        validation_alias="PROJECT_KUBE_TOKEN_FILE",
        description="Another account for all work in project namespaces; read again as it rotates.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="LOG_LEVEL"
    )
    namespace: str = Field(
        "ambient-code", validation_alias="NAMESPACE", description="Our own namespace."
    )

    namespaces: Namespaces = Field(
        [],
        description="Namespaces to work in, by comma; none = all, which needs a ClusterRole."
        " `@platform` among them adds those of the platform's projects as they come and go; what is"
        " named with it is watched even if the platform is unreachable at the start.",
    )
    max_namespaces: int = Field(
        500,
        ge=1,
        le=5000,
        description="Namespaces watched because the platform names them; two connections each.",
    )
    replica: str = Field(
        default_factory=socket.gethostname,
        max_length=253,
        description="Our name in annotations and logs, at most as long as a pod's.",
    )
    workers: int = Field(
        64,
        ge=1,
        le=256,
        description="Sessions worked on at once; with fewer an API server on two cores spends more"
        " on each write, with more it gains nothing.",
    )
    propagation_allowance_s: float = Field(
        90.0,
        gt=0,
        le=600,
        description="Seconds the kubelet may take to project a changed Secret: its sync period of"
        " 60-90 s; more on clusters above 100 nodes.",
    )
    startup_resync: Literal["all", "stale"] = Field(
        "all",
        description="Refresh every running session's token at start, or only those with less than"
        " 0.8 of their life left, and those that are older than the static token's file.",
    )
    resync_s: float = Field(
        360.0,
        ge=5,
        description="Seconds between two reads of the platform's list; 0.4 of a 15-minute token.",
    )
    refresh_on_key_rotation: bool = Field(
        True,
        description="Give every session a new token when the issuer signs with another key (`kid`):"
        " a platform that drops the old key at once refuses all tokens under it. False where issuer"
        " and platform are known to keep the old key for a token's life.",
    )
    touch: bool = Field(
        True,
        description="Patch a pod's annotation when its token would expire before the kubelet's next"
        " sync; needs the right to patch pods.",
    )
    request_limit_s: float = Field(
        10.0, gt=0, le=60, description="Longest wait for one answer of the API server, seconds."
    )
    issuer_limit_s: float = Field(
        5.0, gt=0, le=60, description="Longest wait for one answer of the issuer, seconds."
    )
    platform_limit_s: float = Field(
        10.0, gt=0, le=60, description="Longest wait for one answer of the platform, seconds."
    )
    platform_parallel: int = Field(
        8,
        ge=1,
        le=64,
        description="Requests to the platform at one time, of all kinds; fewer while it is slow. It"
        " serves the runners from the same 50 connections to its database, two a request.",
    )
    drain_s: float = Field(
        20.0,
        ge=0,
        description="Longest wait for writes in flight after SIGTERM; under a pod's 30 s grace.",
    )
    leader_elect: bool = Field(
        True,
        description="Contend for the Lease before writing; without it there must be one replica.",
    )
    lease_name: ObjectName = Field(
        "token-reconciler",
        max_length=250,
        description="The Lease in our own namespace; of a shard, its index is appended: `-0`.",
    )
    shard: ShardSetting = Field(
        ALL_SESSIONS,
        description="i/n: work on part i, counted from 0, of n parts of all sessions. Each part has"
        " its own Lease. One replica bears 100,000 sessions: most need no shards.",
    )
    lease_duration_s: int = Field(
        15,
        ge=1,
        le=150,
        description="Seconds that followers wait for a silent leader; at most a sixth of a token's"
        " life. Whole, as the API has it.",
    )
    renew_deadline_s: float = Field(
        10.0, gt=0, description="Seconds without a renewal after which a leader stops to lead."
    )
    retry_period_s: float = Field(2.0, gt=0, description="Seconds between renewals.")
    pod_uid: Uid = Field(
        "",
        max_length=64,
        description="UID of our pod (downward API): a container that restarts takes its own lease"
        " over at once.",
    )
    listen: ListenAddress = Field(
        ":8080",
        description="HOST:PORT of /livez, /readyz, /metrics and the status page; no host = every"
        " address, as probes need.",
    )
    status_page: bool = Field(
        True,
        description="Serve the status page beside the probes. It shows names of sessions, pods and"
        " Secrets, and no token, to every client that reaches RECONCILER_LISTEN.",
    )
    dashboard_url: HttpUrl | None = Field(
        None, description="The dashboard in your Grafana; the status page links to it."
    )
    runbook_url: HttpUrl | None = Field(
        None,
        description="docs/runbooks.md where your team reads it. The status page links to an alert's"
        " section, and the manifests write it into the alerts.",
    )
    trace_url: TraceUrl | None = Field(
        None,
        description="A trace in your Jaeger or Grafana; `{trace_id}` stands for its ID. The status"
        " page links the runs of a session to their traces.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: readable in a terminal, JSON elsewhere."
    )
    metrics_per_session: bool = Field(
        False,
        description="Export the remaining life of each session: a series a session, which a"
        " Prometheus of a large fleet may not want.",
    )
    prefix: str = Field("ambient-code.io", description="Prefix of labels and annotations.")
    secret_pattern: SecretPattern = Field("session-{id}-creds")
    secret_key: SecretKey = Field("api-token")

    @model_validator(mode="before")
    @classmethod
    def _lower_level(cls, values: Any) -> Any:
        """Accept LOG_LEVEL in any case, and the replaced loop's other names."""
        if isinstance(values, dict) and isinstance(values.get("LOG_LEVEL"), str):
            level = values["LOG_LEVEL"].strip().lower()
            values = values | {"LOG_LEVEL": _LEVELS.get(level, level)}
        return values

    @model_validator(mode="after")
    def _has_issuer(self) -> Self:
        if self.is_oidc and self.oidc_token_url is None:
            raise ValueError(
                "OIDC_TOKEN_URL is required with OIDC_CLIENT_ID: the issuer's token endpoint"
            )
        return self

    @model_validator(mode="after")
    def _lease_fits(self) -> Self:
        """Check the order of the lease's times, which is client-go's.

        A write may start only while the lease is valid for longer than the write's time limit, and
        this must also hold between two renewals.
        """
        if not self.leader_elect:
            return self
        lease_s, deadline_s, retry_s = (
            self.lease_duration_s,
            self.renew_deadline_s,
            self.retry_period_s,
        )
        if not lease_s > deadline_s > 1.2 * retry_s:
            raise ValueError(
                f"RECONCILER_LEASE_DURATION_S {lease_s:g} must be more than"
                f" RECONCILER_RENEW_DEADLINE_S {deadline_s:g}, and that more than 1.2 times"
                f" RECONCILER_RETRY_PERIOD_S {retry_s:g}"
            )
        if self.request_limit_s > lease_s - 2 * retry_s:
            raise ValueError(
                f"RECONCILER_REQUEST_LIMIT_S {self.request_limit_s:g} must be at most"
                f" {lease_s - 2 * retry_s:g}, which is RECONCILER_LEASE_DURATION_S less two of"
                " RECONCILER_RETRY_PERIOD_S: no write may outlast the lease"
            )
        return self

    @property
    def finds_namespaces(self) -> bool:
        """True where the platform's projects decide the namespaces."""
        return FROM_PLATFORM in self.namespaces

    @property
    def listed_namespaces(self) -> list[str]:
        """The named namespaces; an empty list means all, unless `finds_namespaces`."""
        return [name for name in self.namespaces if name != FROM_PLATFORM]

    @property
    def lease(self) -> str:
        """The name of the Lease that this replica contends for."""
        return self.lease_of(self.shard)

    def lease_of(self, shard: Shard) -> str:
        """Return the name of a shard's Lease."""
        return self.lease_name if shard.count == 1 else f"{self.lease_name}-{shard.index}"

    @property
    def lease_annotations(self) -> dict[str, str]:
        """The annotations of the Lease; none without shards."""
        return {self.names().shard: str(self.shard)} if self.shard.count > 1 else {}

    @property
    def platform_share(self) -> int:
        """The requests to the platform at one time of this shard: of all shards together, those of
        `platform_parallel`, and at least one each."""
        return max(1, self.platform_parallel // self.shard.count)

    @property
    def is_oidc(self) -> bool:
        """True with both client credentials, which are used before a static token."""
        return bool(
            (self.oidc_client_id or self.oidc_client_id_file)
            and (self.oidc_client_secret or self.oidc_client_secret_file)
        )

    def token_url(self) -> str:
        """Return the issuer's token endpoint; raises `SettingsError` where there is none."""
        if self.oidc_token_url is None:
            raise SettingsError("OIDC_TOKEN_URL is not set")
        return self.oidc_token_url

    def token_request_fields(self) -> list[tuple[str, str]]:
        """Return the fields of a token request, without the grant type and the credentials."""
        fields = (
            ("scope", self.oidc_scope),
            ("audience", self.oidc_audience),
            ("resource", self.oidc_resource),
        )
        return [(name, value) for name, value in fields if value] + self.oidc_form

    def credential_files(self) -> dict[str, Path]:
        """Return variable -> file for the credentials that are used."""
        named = {
            "AMBIENT_API_TOKEN_FILE": None if self.is_oidc else self.api_token_file,
            "OIDC_CLIENT_ID_FILE": self.oidc_client_id_file,
            "OIDC_CLIENT_SECRET_FILE": self.oidc_client_secret_file,
            "PROJECT_KUBE_TOKEN_FILE": self.project_kube_token_file,
        }
        return {name: file for name, file in named.items() if file}

    def names(self) -> Names:
        return Names(
            prefix=self.prefix, secret_pattern=self.secret_pattern, secret_key=self.secret_key
        )


def load_settings() -> Settings:
    """Read the settings of `reconciler run`; raises `SettingsError` as `read_settings`, or if no
    token for runners is set."""
    settings = read_settings()
    if not settings.is_oidc and not (settings.api_token or settings.api_token_file):
        misspelled = (
            f"{name} is no setting and has no effect; the nearest is {nearest}"
            for name, nearest in unknown_variables(os.environ).items()
            if name.startswith(SHARED)
        )
        raise SettingsError("\n".join([_no_credentials(settings), *misspelled]))
    return settings


def read_settings() -> Settings:
    """Read the environment, with or without credentials for runners: other commands need none.

    pydantic-settings would import the parser of a command line, and others, for a fifteenth of the
    start's CPU.

    Raises:
        SettingsError: One message that names every wrong variable and no secret value.
    """
    if unreadable := [name for name in _variables() if not _is_text(os.environ.get(name, ""))]:
        raise SettingsError("\n".join(f"{name} must be text in UTF-8" for name in unreadable))
    given = {name: value for name in _variables() if (value := os.environ.get(name))}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(
            "\n".join(_sentence(found) for found in error.errors(include_input=False))
        ) from None


def _variables() -> list[str]:
    return [str(field.validation_alias) for field in Settings.model_fields.values()]


def _is_text(value: str) -> bool:
    """Return whether a variable's bytes were UTF-8: Python keeps others as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


SHARED = ("OIDC_", "AMBIENT_")
"""Prefixes of the replaced loop's variables, which other programs use too."""

TYPO = 0.9
"""From this ratio on two names count as one of which one is misspelled: a letter or two of ten."""


def unknown_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return each variable that begins with RECONCILER_ and is no setting, with the nearest one.

    Variables that a kubelet adds for a Service called `reconciler` are left out. A variable that
    begins with OIDC_ or AMBIENT_ may be another program's: it counts where it is `TYPO` alike.

    Returns: Name -> the setting that is spelled most alike, "" where none is near.
    """
    shared = [name for name in _variables() if name.startswith(SHARED)]
    known = {name.removeprefix(PREFIX) for name in _variables() if name.startswith(PREFIX)}
    found: dict[str, str] = {}
    for name in sorted(environment):
        if name.startswith(SHARED) and name not in shared:
            if alike := get_close_matches(name, shared, n=1, cutoff=TYPO):
                found[name] = alike[0]
            continue
        ours = name.upper().startswith(PREFIX) and not _SERVICE_LINK.fullmatch(name)
        if not ours or (name.startswith(PREFIX) and name.removeprefix(PREFIX) in known):
            continue
        near = get_close_matches(name[len(PREFIX) :].upper(), known, n=1)
        found[name] = f"{PREFIX}{near[0]}" if near else ""
    return found


def _no_credentials(settings: Settings) -> str:
    if settings.oidc_client_id or settings.oidc_client_id_file:
        return "OIDC_CLIENT_ID is set, but OIDC_CLIENT_SECRET (or OIDC_CLIENT_SECRET_FILE) is not"
    if settings.oidc_client_secret or settings.oidc_client_secret_file:
        return "OIDC_CLIENT_SECRET is set, but OIDC_CLIENT_ID (or OIDC_CLIENT_ID_FILE) is not"
    return (
        "no token to give to runners: set OIDC_CLIENT_ID and OIDC_CLIENT_SECRET,"
        " or AMBIENT_API_TOKEN"
    )


_MESSAGES = {
    "value_error": "{error}",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_long": "must have at most {max_length} characters",
}
"""By pydantic's type of an error, with the fields of its context."""


def _sentence(found: Any) -> str:
    """Return a message for one error of the validator: the variable's name, and the fault."""
    message = _MESSAGES.get(found["type"], "has a wrong value").format(**found.get("ctx", {}))
    if not found["loc"]:
        return message
    name = str(found["loc"][0])
    variable = name if name.isupper() else f"RECONCILER_{name.upper()}"
    is_hidden = any(part in variable for part in ("SECRET", "TOKEN", "URL", "FORM"))
    shown = "" if is_hidden else f" (is {_shown(variable)})"
    return f"{variable} {message}{shown}"


def _shown(variable: str) -> str:
    return repr(os.environ.get(variable, ""))
