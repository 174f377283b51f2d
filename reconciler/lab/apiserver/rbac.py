"""Users, their tokens, and the rules of each user.

The terms are those of the real server's RBAC; the model is the part of it that the lab needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind
from reconciler.lab.apiserver.status_errors import StatusError, forbidden, quote, refuse

ANY = ("*",)


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources (`pods`, `pods/status`) in namespaces; "*" is any."""

    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    namespaces: tuple[str, ...] = ANY

    def covers(self, verb: str, resource: str, namespace: str) -> bool:
        """Return whether the rule allows a request; `namespace` "" means all namespaces."""
        return all(
            "*" in allowed or asked in allowed
            for allowed, asked in (
                (self.verbs, verb), (self.resources, resource), (self.namespaces, namespace),
            )
        )  # fmt: skip


EVERYTHING = Rule(ANY, ANY)


@dataclass(frozen=True, slots=True)
class User:
    """A user name and its rules."""

    name: str
    rules: tuple[Rule, ...] = ()
    groups: tuple[str, ...] = ()


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request needs: a verb on a resource, or on one object of it."""

    verb: str
    kind: Kind
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


class Authorizer:
    """Tokens to users. `users` may be changed at run time.

    Args:
        users: `dict[token, User]`.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self.users = dict(users)

    def user_of(self, token: str) -> User | None:
        """Return the user of a token, or None for an unknown token."""
        return self.users.get(token)

    def allows(self, user: User, asked: Attributes) -> bool:
        if asked.kind is kinds.ACCESS_REVIEWS and user is not ANONYMOUS:
            return True
        return _granted(user, asked.verb, asked.resource, asked.namespace)

    def check(self, user: User, asked: Attributes) -> None:
        """Raise `StatusError` 403 if the user may not."""
        if not self.allows(user, asked):
            raise denied(user, asked)

    def review_access(self, user: User, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a SelfSubjectAccessReview."""
        spec = body.get("spec") or {}
        asked = spec.get("resourceAttributes") or {}
        resource = str(asked.get("resource", ""))
        if asked.get("subresource"):
            resource += f"/{asked['subresource']}"
        allowed = _granted(user, asked.get("verb", ""), resource, asked.get("namespace", ""))
        status = {"allowed": allowed} | ({"reason": "granted by the lab"} if allowed else {})
        return _review(kinds.ACCESS_REVIEWS, spec, status)

    def review_token(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a TokenReview."""
        spec = body.get("spec") or {}
        user = self.user_of(str(spec.get("token", "")))
        status: dict[str, Any] = {"user": {}, "error": "invalid bearer token"}
        if user is not None:
            groups = [*user.groups, "system:authenticated"]
            status = {
                "authenticated": True,
                "user": {"username": user.name, "uid": user.name, "groups": groups},
            }
        return _review(kinds.TOKEN_REVIEWS, spec, status)


def denied(user: User, asked: Attributes) -> StatusError:
    """Source: apiserver `handlers/responsewriters/errors.go`, forbiddenMessage."""
    where = (
        f"in the namespace {quote(asked.namespace)}"
        if asked.namespace
        else ("at the cluster scope")
    )
    return forbidden(
        asked.kind,
        asked.name,
        f"User {quote(user.name)} cannot {asked.verb} resource {quote(asked.resource)} in API "
        f"group {quote(asked.kind.group)} {where}",
    )


def denied_path(user: User, verb: str, path: str) -> StatusError:
    """Return a 403 for a path that is no resource."""
    message = f"forbidden: User {quote(user.name)} cannot {verb} path {quote(path)}"
    return refuse(403, "Forbidden", message, details={})


def _granted(user: User, verb: str, resource: str, namespace: str) -> bool:
    return any(rule.covers(verb, resource, namespace) for rule in user.rules)


def _review(kind: Kind, spec: Any, status: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {},
        "spec": spec,
        "status": status,
    }
