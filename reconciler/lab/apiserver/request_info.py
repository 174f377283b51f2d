"""The verb, the resource and the options of an HTTP request.

Source: apiserver `endpoints/request/requestinfo.go`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.lab.apiserver.deletion import DeleteOptions
from reconciler.lab.apiserver.kinds import NAMESPACES, Kind, find_kind
from reconciler.lab.apiserver.paging import ListQuery
from reconciler.lab.apiserver.rbac import Attributes
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.apiserver.status_errors import FieldError, bad_request, invalid_options
from reconciler.lab.apiserver.write_log import Caller

MANAGER_LIMIT = 128
"""Longest default field manager. Source: apimachinery `validation.FieldManagerMaxLength`."""

Query = Mapping[str, str]

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """What a path names; `name` "": the collection, `namespace` "": all or none."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> RequestTarget | None:
    """Return what `path` names, or None if this server does not serve it."""
    match path.strip("/").split("/"):
        case ["api", "v1", *rest]:
            return _target("", "v1", rest)
        case ["apis", group, version, *rest]:
            return _target(group, version, rest)
    return None


def _target(group: str, version: str, rest: list[str]) -> RequestTarget | None:
    namespace = ""
    # `namespaces/x/status` is a subresource of the namespace; `namespaces/x/pods` is inside it.
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not 1 <= len(rest) <= 3:
        return None
    kind = find_kind(group, version, rest[0])
    if kind is None or (namespace and not kind.namespaced):
        return None
    name, subresource = [*rest[1:], "", ""][:2]
    if name and kind.namespaced and not namespace:
        return None
    if subresource and not (subresource == "status" and kind.status):
        return None
    return RequestTarget(kind, namespace, name, subresource)


def attributes_of(method: str, target: RequestTarget, query: Query) -> Attributes:
    """Return what the request needs, for authorization."""
    verb = _VERBS.get("GET" if method == "HEAD" else method, method.lower())
    if not target.name:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    if verb == "list" and is_set(query, "watch"):
        verb = "watch"
    own = target.kind is NAMESPACES and target.name
    namespace = target.name if own else target.namespace
    return Attributes(verb, target.kind, target.subresource, namespace, target.name)


def is_set(query: Query, name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "t", "yes", "y")


def selection_of(target: RequestTarget, query: Query) -> Selection:
    return Selection(
        target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
    )


def list_query_of(query: Query) -> ListQuery:
    """Read the options of a list; raises `StatusError`."""
    if "sendInitialEvents" in query:
        rule = "Forbidden: sendInitialEvents is forbidden for list"
        fault = FieldError("sendInitialEvents", "FieldValueForbidden", rule)
        raise invalid_options("ListOptions", [fault])
    return ListQuery(
        limit=number(query, "limit") or 0,
        token=query.get("continue", ""),
        version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
    )


def initial_of(query: Query) -> bool | None:
    """Return sendInitialEvents of a watch, None if absent; raises `StatusError` 422."""
    match, name = query.get("resourceVersionMatch", ""), "resourceVersionMatch"
    sent = "sendInitialEvents" in query
    faults: list[FieldError] = []
    if sent and match != "NotOlderThan":
        rule = f"Forbidden: sendInitialEvents requires setting {name} to NotOlderThan"
        faults.append(FieldError(name, "FieldValueForbidden", rule))
    if match and not sent:
        rule = f"Forbidden: {name} is forbidden for watch unless sendInitialEvents is provided"
        faults.append(FieldError(name, "FieldValueForbidden", rule))
    if match and match != "NotOlderThan":
        rule = f'Unsupported value: "{match}": supported values: "NotOlderThan"'
        faults.append(FieldError(name, "FieldValueNotSupported", rule))
    if faults:
        raise invalid_options("ListOptions", faults)
    return is_set(query, "sendInitialEvents") if sent else None


def number(query: Query, name: str) -> int | None:
    """Return a whole number from the query, None if absent; raises `StatusError` 400."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error


def caller_of(user: str, agent: str, query: Query) -> Caller:
    """Return the client; its manager is the query's, or the user agent up to its first `/`."""
    manager = query.get("fieldManager") or default_manager(agent)
    return Caller(user, agent, manager, dry_run=query.get("dryRun") == "All")


def default_manager(agent: str) -> str:
    """Source: apiserver `endpoints/handlers/create.go`, prefixFromUserAgent."""
    return "".join(one for one in agent.split("/")[0] if one.isprintable())[:MANAGER_LIMIT]


def delete_options_of(body: Mapping[str, Any], query: Query) -> DeleteOptions:
    """Read the options of a delete from its body, or from the query."""
    wanted = body.get("preconditions") or {}
    grace_s = body.get("gracePeriodSeconds")
    if grace_s is None:
        grace_s = number(query, "gracePeriodSeconds")
    return DeleteOptions(grace_s, wanted.get("uid") or "", wanted.get("resourceVersion") or "")
