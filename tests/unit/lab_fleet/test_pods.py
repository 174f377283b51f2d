"""What the node reads of a pod."""

import json
from typing import Any

import pytest

from reconciler.errors import ProtocolError
from reconciler.lab.kubelet.pods import Pod, SecretRef, decode_pod
from reconciler.naming import Names, SessionKey


def decode(**changes: Any) -> Pod:
    metadata = {
        "uid": "u1",
        "name": "session-abc-runner",
        "namespace": "ns",
        "labels": {"ambient-code.io/session-id": "AbC"},
        **changes.pop("metadata", {}),
    }
    return decode_pod(json.dumps({"metadata": metadata, **changes}).encode(), Names())


def test_token_volume_is_the_one_that_mounts_the_sessions_secret() -> None:
    volumes = [
        {"name": "workspace", "emptyDir": {}},
        {"name": "vertex", "secret": {"secretName": "vertex"}},
        {
            "name": "runner-token",
            "secret": {
                "secretName": "session-abc-creds",
                "items": [{"key": "api-token", "path": "bot-token"}],
            },
        },
    ]

    pod = decode(spec={"volumes": volumes, "containers": [{"name": "r", "image": "i"}]})

    assert pod.secret == SecretRef("ns", "session-abc-creds")
    assert pod.files == (("api-token", "bot-token"),)
    assert pod.containers == (("r", "i"),)


def test_pod_without_volumes_is_read_as_the_platforms() -> None:
    pod = decode()

    assert pod.session == SessionKey("ns", "AbC")
    assert pod.secret == SecretRef("ns", "session-abc-creds")
    assert pod.files == (("api-token", "bot-token"),)
    assert (pod.phase, pod.ended, pod.grace_s) == ("Pending", False, None)


@pytest.mark.parametrize(
    ("metadata", "grace_s"),
    [
        ({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 60}, 60.0),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, 0.0),
    ],
)
def test_deletion_carries_its_grace(metadata: dict[str, Any], grace_s: float) -> None:
    assert decode(metadata=metadata).grace_s == grace_s


def test_touch_changes_with_any_annotation() -> None:
    plain, touched = decode(), decode(metadata={"annotations": {"any": "1"}})

    assert plain.touch != touched.touch


def test_other_bytes_are_a_wire_error() -> None:
    with pytest.raises(ProtocolError):
        decode_pod(b'{"metadata":{}}', Names())
