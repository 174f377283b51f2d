"""Lists: their version, the start of a page, and the continue token.

Source: apiserver `storage/continue.go` and `storage/etcd3/errors.go`; the rules for versions are
those of the API concepts page, "resourceVersion in get, list and watch".
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.status_errors import (
    CONTINUE_TOO_OLD,
    FieldError,
    bad_request,
    expired,
    invalid_options,
    refuse,
    too_large_version,
)

_LATEST = -1
"""A token's version that means: continue with the newest state, even if inconsistent."""

EXACT, NOT_OLDER = "Exact", "NotOlderThan"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The options of a list; `limit` 0 = all."""

    limit: int = 0
    token: str = ""
    version: str = ""
    match: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page; `remaining` is None if the server does not send it."""

    items: Sequence[Object]
    version: int
    token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class ListPosition:
    """Where a page begins: at `start`, in the state at `version` (0 = the newest)."""

    version: int
    start: str = ""
    limit: int = 0


def parse_version(text: str) -> int:
    """Return a resourceVersion as a number, "" as 0; raises `StatusError`."""
    if not text:
        return 0
    if not text.isdecimal():
        raise bad_request(f"invalid resource version: {_unparsed(text)}")
    return int(text)


def parse_watch_version(text: str) -> int:
    """Return the same for a watch, where the real server answers a bad version with 500."""
    if text and not text.isdecimal():
        raise refuse(500, "", _unparsed(text))
    return parse_version(text)


def _unparsed(text: str) -> str:
    quoted = json.dumps(text)
    return (
        f"resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: "
        "invalid syntax"
    )


def position_of(query: ListQuery, *, current: int, compacted: int) -> ListPosition:
    """Return where a list begins.

    Raises:
        StatusError: 400 for a bad token or version, 410 for a compacted version, 422 for options
            that exclude each other, 504 for a version not reached yet.
    """
    _check_match(query)
    if query.token:
        return _continued(query, current=current, compacted=compacted)
    version = parse_version(query.version)
    if version > current:
        raise too_large_version(version, current)
    # Without a match, a limit requests exactly that version; version 0 ignores the limit, since the
    # watch cache answers with the whole list.
    if version and (query.match == EXACT or (not query.match and query.limit)):
        if version < compacted:
            raise expired("The resourceVersion for the provided list is too old.")
        return ListPosition(version, limit=query.limit)
    ignored = query.version == "0" or query.match == NOT_OLDER
    return ListPosition(0, limit=0 if ignored else query.limit)


def _continued(query: ListQuery, *, current: int, compacted: int) -> ListPosition:
    if query.version not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    version, start = decode_token(query.token)
    if version == _LATEST:
        return ListPosition(0, start, query.limit)
    if version < compacted:
        raise expired(CONTINUE_TOO_OLD, token=encode_token(_LATEST, start))
    if version > current:
        raise too_large_version(version, current)
    return ListPosition(version, start, query.limit)


def _check_match(query: ListQuery) -> None:
    """Source: apimachinery `internalversion/validation`."""
    if not query.match:
        return
    faults: list[FieldError] = []
    name = "resourceVersionMatch"
    if not query.version:
        text = f"Forbidden: {name} is forbidden unless resourceVersion is provided"
        faults.append(FieldError(name, "FieldValueForbidden", text))
    if query.token:
        text = f"Forbidden: {name} is forbidden when continue is provided"
        faults.append(FieldError(name, "FieldValueForbidden", text))
    if query.match not in (EXACT, NOT_OLDER):
        text = f'Unsupported value: "{query.match}": supported values: "", "Exact", "NotOlderThan"'
        faults.append(FieldError(name, "FieldValueNotSupported", text))
    if query.match == EXACT and query.version == "0":
        text = f'Forbidden: {name} "exact" is forbidden for resourceVersion "0"'
        faults.append(FieldError(name, "FieldValueForbidden", text))
    if faults:
        raise invalid_options("ListOptions", faults)


def encode_token(version: int, start: str) -> str:
    """Return the token of the page that begins at key `start`."""
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": start}
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")


def decode_token(text: str) -> tuple[int, str]:
    """Return version and start key; raises `StatusError` 400."""
    try:
        padded = text + "=" * (-len(text) % 4)
        token: Any = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, start = token["rv"], token["start"]
        if token["v"] != "meta.k8s.io/v1" or not isinstance(version, int) or not start:
            raise ValueError("not a token of ours")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request("invalid continue token: continue key is not valid") from error
    return version, str(start)
