"""API discovery, which kubectl requests first: groups, versions, resources."""

from typing import Any

from reconciler.lab.apiserver.kinds import KINDS, Kind

VERSION = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.2+lab",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "any",
}

_GROUPS = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})


def document(path: str) -> dict[str, Any] | None:
    """Return the document at a discovery path, or None."""
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        groups = [_group(*one) for one in _GROUPS]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/api/v1":
        return _resources("", "v1")
    if path == "/openapi/v3":
        return {"paths": {}}
    for group, version in _GROUPS:
        if path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, version)
        if path == f"/apis/{group}/{version}":
            return _resources(group, version)
    return None


def is_known_group(path: str) -> bool:
    """Whether a path is inside a served group, even if no document exists there."""
    return path.startswith(("/api/v1/", *(f"/apis/{group}/" for group, _ in _GROUPS)))


def _group(group: str, version: str) -> dict[str, Any]:
    named = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [named], "preferredVersion": named}


def _resources(group: str, version: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        if (kind.group, kind.version) == (group, version):
            found.append(_resource(kind))
            if kind.status:
                status = {"name": f"{kind.plural}/status", "verbs": ["get", "patch", "update"]}
                found.append(_resource(kind) | status | {"shortNames": []})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": found,
    }


def _resource(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
        "shortNames": list(kind.short),
    }
