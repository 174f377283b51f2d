"""The Secret cache has one older version, and its repr shows no value."""

import base64
import json

import pytest

from reconciler.errors import ProtocolError
from reconciler.lab.kubelet.pods import SecretRef
from reconciler.lab.kubelet.secrets import Payload, SecretCache, decode_secret

REF = SecretRef("ns", "session-one-creds")
KEYS = (("api-token", "bot-token"),)


def payload(text: str) -> Payload:
    return Payload({"api-token": text.encode()})


def filled(*texts: str) -> SecretCache:
    cache = SecretCache()
    for text in texts:
        cache.put(REF, payload(text))
    return cache


def test_only_changed_values_are_a_change() -> None:
    cache = SecretCache()

    assert [cache.put(REF, payload(text)) for text in ("a", "a", "b")] == [True, False, True]


@pytest.mark.parametrize(
    ("known", "mounted", "expected"),
    [
        pytest.param(["a", "b", "c"], "a", "b", id="one-version-behind"),
        pytest.param(["a", "b"], "a", None, id="behind-is-what-is-mounted"),
        pytest.param(["a", "b"], "b", None, id="never-backwards"),
        pytest.param(["a"], "x", None, id="nothing-before-the-newest"),
    ],
)
def test_stale_read_misses_the_newest_change(
    known: list[str], mounted: str, expected: str | None
) -> None:
    found = filled(*known).stale(REF, mounted=payload(mounted).digest)

    assert (found.digest if found else None) == (payload(expected).digest if expected else None)


def test_dropped_secret_is_unknown_again() -> None:
    cache = filled("a", "b")
    cache.drop(REF)

    assert cache.get(REF) is None
    assert cache.refs() == set()


def test_missing_key_selects_nothing() -> None:
    assert payload("a").select(KEYS) == {"bot-token": b"a"}
    assert Payload({"other": b"a"}).select(KEYS) is None


def test_moved_boundary_between_values_is_another_digest() -> None:
    assert Payload({"a": b"bc"}).digest != Payload({"ab": b"c"}).digest


def test_secret_without_data_decodes_to_no_keys() -> None:
    ref, found = decode_secret(b'{"metadata":{"name":"s","namespace":"ns"}}')

    assert (ref, repr(found)) == (SecretRef("ns", "s"), "<Payload of 0 keys>")


def test_no_repr_or_error_shows_a_value() -> None:
    shown = base64.b64encode(b"hidden-value").decode()
    body = {"metadata": {"name": "s"}, "data": {"api-token": shown, "b": "!" + shown + "?"}}
    with pytest.raises(ProtocolError) as caught:
        decode_secret(json.dumps(body).encode())

    texts = repr(caught.value) + repr(payload("hidden-value")) + repr(filled("hidden-value"))
    assert "hidden-value" not in texts
    assert shown not in texts
    assert caught.value.__cause__ is None
