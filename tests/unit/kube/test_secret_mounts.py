"""How containers mount their session's Secret, by a pod as the API server sends it."""

import json
from typing import Any

import pytest

from reconciler.errors import ProtocolError
from reconciler.kube.secret_mounts import SecretMounts, secret_mounts_resource
from tests.unit.controller.build import NAMES

SECRET = "session-2abcdef-creds"
OF_SECRET = {"name": "token", "secret": {"secretName": SECRET}}
PROJECTED = {"name": "token", "projected": {"sources": [{"secret": {"name": SECRET}}]}}
OTHER = {"name": "token", "secret": {"secretName": "other"}}
CA = {"name": "token", "configMap": {"name": "service-ca"}}
BY_SUBPATH = {"name": "token", "mountPath": "/token", "subPath": "api-token"}
BY_EXPRESSION = {"name": "token", "mountPath": "/token", "subPathExpr": "$(KEY)"}
AS_DIRECTORY = {"name": "token", "mountPath": "/var/run/secrets/ambient"}
EMPTY_SUBPATH = AS_DIRECTORY | {"subPath": ""}


def by_subpath(spec: dict[str, Any], *, session_id: str = "2abcDEF") -> tuple[str, ...]:
    return mounts(spec, session_id=session_id).by_subpath


def mounts(spec: dict[str, Any], *, session_id: str = "2abcDEF") -> SecretMounts:
    labels = {NAMES.session_id: session_id} if session_id else {}
    pod = {"metadata": {"name": "runner", "namespace": "team-a", "labels": labels}, "spec": spec}
    return secret_mounts_resource(NAMES).decode(json.dumps(pod).encode())


def spec_of(volume: dict[str, Any], mount: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"name": "runner", "volumeMounts": [mount]}], "volumes": [volume]}


@pytest.mark.parametrize(
    ("volume", "mount", "containers"),
    [
        pytest.param(OF_SECRET, BY_SUBPATH, ("runner",), id="by-subpath"),
        pytest.param(OF_SECRET, BY_EXPRESSION, ("runner",), id="by-expression"),
        pytest.param(PROJECTED, BY_SUBPATH, ("runner",), id="projected"),
        pytest.param(OF_SECRET, AS_DIRECTORY, (), id="as-directory"),
        pytest.param(OF_SECRET, EMPTY_SUBPATH, (), id="empty-subpath"),
        pytest.param(OTHER, BY_SUBPATH, (), id="another-secret"),
        pytest.param(CA, BY_SUBPATH, (), id="a-config-map"),
    ],
)
def test_only_a_subpath_of_the_sessions_secret_counts(
    volume: dict[str, Any], mount: dict[str, Any], containers: tuple[str, ...]
) -> None:
    assert by_subpath(spec_of(volume, mount)) == containers


def test_of_init_containers_only_those_that_run_as_long_as_the_pod_count() -> None:
    mounted = {"volumeMounts": [BY_SUBPATH]}
    spec = {
        "initContainers": [
            {"name": "once", **mounted},
            {"name": "sidecar", "restartPolicy": "Always", **mounted},
        ],
        "containers": [{"name": "runner"}, {"name": "second", **mounted}],
        "volumes": [OF_SECRET],
    }
    assert by_subpath(spec) == ("sidecar", "second")


def test_a_pod_without_a_session_or_a_specification_has_none() -> None:
    assert by_subpath(spec_of(OF_SECRET, BY_SUBPATH), session_id="") == ()
    assert by_subpath({}) == ()


@pytest.mark.parametrize(
    ("volumes", "others"),
    [
        pytest.param([OTHER, CA], ("other",), id="another"),
        pytest.param([OTHER, OF_SECRET], (), id="also-its-own"),
        pytest.param([PROJECTED], (), id="its-own-projected"),
        pytest.param([CA], (), id="none"),
    ],
)
def test_the_secrets_of_the_volumes_are_named_if_its_own_is_missing(
    volumes: list[dict[str, Any]], others: tuple[str, ...]
) -> None:
    assert mounts({"volumes": volumes}).other_secrets == others


def test_what_is_no_pod_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        secret_mounts_resource(NAMES).decode(b'{"metadata": []}')
