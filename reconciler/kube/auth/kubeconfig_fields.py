"""The fields of a kubeconfig: which are honoured, which are refused, which are of no effect (pure).

A field that restricts what a request may do, or which server it may reach, is honoured or refused,
never ignored: without it each request would run with the rights of the underlying account. An
unknown field may be such a restriction, so it is refused as well.
Source of the fields: client-go, tools/clientcmd/api/v1/types.go.
"""

import string
from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler.errors import SettingsError
from reconciler.net.urls import url_problem

_CLUSTER = frozenset(
    {
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority",
        "certificate-authority-data",
        "proxy-url",
    }
)
_USER = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "username",
        "password",
        "auth-provider",
        "exec",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
    }
)
_CONTEXT = frozenset({"cluster", "user", "namespace"})
_EXEC = frozenset(
    {"command", "args", "env", "apiVersion", "installHint", "interactiveMode", "provideClusterInfo"}
)

_NOT_TEXT = frozenset(
    {"insecure-skip-tls-verify", "auth-provider", "exec"}
    | {"as", "as-uid", "as-groups", "as-user-extra"}
)
"""Known fields whose value is no text, and those of `as`, which have rules of their own."""

_NO_EFFECT = frozenset({"extensions", "disable-compression"})
"""Known fields that may be ignored without loss."""

_PROVIDERS = ("gcp",)
"""Not `oidc`: kubernetes-asyncio sends client secret and refresh token to an issuer of which it
checks no certificate, or fails if the kubeconfig names a CA (`OpenIDRequestor`)."""

_HEADER_KEY = frozenset(string.ascii_letters + string.digits + "!#$&'*+-.^_`|~")
"""Characters that a header's name may hold unescaped; not `%`, which begins an escape."""

Headers = tuple[tuple[str, str], ...]
"""Names and values; a name may occur more than once."""


class Fields(msgspec.Struct, frozen=True):
    """The fields of a context's three sections, apart from credentials.

    Args:
        impersonation: Headers of each request, none without `as`.
        ignored: Fields that are set and have no effect here, as `user.name-of-field`.
    """

    impersonation: Headers
    ignored: tuple[str, ...]


def read_fields(context: Any, cluster: Any, user: Any) -> Fields:
    """Read the sections of one context; a field that is empty counts as absent.

    Raises:
        SettingsError: A section is no mapping, or has a field that cannot be honoured.
    """
    sections = {
        "context": (_set_fields("context", context), _CONTEXT),
        "cluster": (_set_fields("cluster", cluster), _CLUSTER),
        "user": (_set_fields("user", user), _USER),
    }
    ignored: list[str] = []
    for name, (section, known) in sections.items():
        for field in section.keys() - known:
            if field not in _NO_EFFECT and name != "context":
                raise SettingsError(
                    f"its {name} sets {field[:80]!r}, which is not supported: what it restricts"
                    " would be ignored"
                )
            if field not in _NO_EFFECT:
                ignored.append(f"{name}.{field[:80]}")
        for field in section.keys() & known - _NOT_TEXT:
            if not is_text(section[field]):
                raise SettingsError(f"its {name}'s {field} is no text")
    _check_cluster(sections["cluster"][0])
    found = sections["user"][0]
    _check_user(found)
    return Fields(_impersonation(found), tuple(sorted(ignored)))


def is_text(value: Any) -> bool:
    """Return whether a value may be a path, a name or a header: UTF-8 without a null byte."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _set_fields(name: str, section: Any) -> dict[str, Any]:
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise SettingsError(f"its {name} is no mapping")
    return {
        str(field): value
        for field, value in section.items()
        if value not in (None, "", False, [], {})
    }


def _check_cluster(cluster: Mapping[str, Any]) -> None:
    proxy = cluster.get("proxy-url")
    # Client-go knows socks5, too; we do not.
    if proxy is not None and (problem := url_problem(str(proxy), user=True)):
        raise SettingsError(f"its cluster's proxy-url {problem}")
    has_ca = "certificate-authority" in cluster or "certificate-authority-data" in cluster
    if "insecure-skip-tls-verify" in cluster and has_ca:
        raise SettingsError(
            "its cluster sets insecure-skip-tls-verify and a certificate-authority: only one of"
            " them can be meant"
        )


def _check_user(user: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for a field that cannot be honoured."""
    provider = user.get("auth-provider")
    if isinstance(provider, Mapping) and provider.get("name") not in _PROVIDERS:
        raise SettingsError(
            f"its user's auth-provider {str(provider.get('name'))[:80]!r} is not supported: use an"
            " exec plug-in"
        )
    plugin = user.get("exec")
    if not isinstance(plugin, Mapping):
        return
    if str(plugin.get("interactiveMode")).lower() == "always":
        raise SettingsError("its user's exec plug-in asks at a terminal (interactiveMode Always)")
    fields = _set_fields("exec", plugin).keys()
    for field in fields - _EXEC:
        raise SettingsError(f"its user's exec sets {field[:80]!r}, which is not supported")


def _impersonation(user: Mapping[str, Any]) -> Headers:
    """Return the headers of `as` and its companions.

    Raises:
        SettingsError: A companion without `as`, which client-go ignores, or a value of another
            type than the field's.
    """
    name = user.get("as")
    companions = [field for field in ("as-uid", "as-groups", "as-user-extra") if user.get(field)]
    if name is None:
        if companions:
            raise SettingsError(f"its user sets {companions[0]} without as")
        return ()
    headers = [("Impersonate-User", _value("as", name))]
    if uid := user.get("as-uid"):
        headers.append(("Impersonate-Uid", _value("as-uid", uid)))
    headers += [("Impersonate-Group", value) for value in _values("as-groups", user)]
    extra = user.get("as-user-extra") or {}
    if not isinstance(extra, Mapping):
        raise SettingsError("its user's as-user-extra is no mapping of lists")
    for key in extra:
        title = "Impersonate-Extra-" + _escaped(_value("as-user-extra", key))
        headers += [(title, value) for value in _values(key, extra, "as-user-extra")]
    return tuple(headers)


def _values(field: str, section: Mapping[str, Any], name: str = "") -> list[str]:
    values = section.get(field) or []
    if not isinstance(values, list):
        raise SettingsError(f"its user's {name or field} holds something that is no list")
    return [_value(name or field, value) for value in values]


def _value(field: str, value: Any) -> str:
    """Return a header's value; raises `SettingsError` if it is no single line of text."""
    if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
        raise SettingsError(f"its user's {field} holds something that is no line of text")
    return value


def _escaped(key: str) -> str:
    """Return a key in the form of a header's name. Source: client-go, `headerKeyEscape`."""
    return "".join(
        chr(byte) if chr(byte) in _HEADER_KEY else f"%{byte:02X}" for byte in key.encode()
    )
