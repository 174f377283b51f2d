"""The node's cache of Secrets, with one older version of each for stale reads."""

import base64
import binascii
import hashlib
from collections.abc import Mapping

import msgspec

from reconciler.errors import ProtocolError
from reconciler.lab.kubelet.pods import SecretRef


class Payload:
    """The values of one version of a Secret, by key; `digest` identifies them."""

    __slots__ = ("_values", "digest")

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = dict(values)
        parts = [part for key in sorted(values) for part in (key.encode(), values[key])]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        self.digest = hashlib.sha256(framed).hexdigest()

    def __repr__(self) -> str:
        return f"<Payload of {len(self._values)} keys>"

    def select(self, keys: tuple[tuple[str, str], ...]) -> dict[str, bytes] | None:
        """Return file name -> value, or None if a key is missing: then no file is mounted."""
        if any(key not in self._values for key, _ in keys):
            return None
        return {path: self._values[key] for key, path in keys}


class SecretCache:
    """The Secrets that the watch has delivered."""

    def __init__(self) -> None:
        self._current: dict[SecretRef, Payload] = {}
        self._previous: dict[SecretRef, Payload] = {}

    def __repr__(self) -> str:
        return f"<SecretCache {len(self._current)} Secrets>"

    def refs(self) -> set[SecretRef]:
        return set(self._current)

    def get(self, ref: SecretRef) -> Payload | None:
        """Return the newest version, or None for an unknown Secret."""
        return self._current.get(ref)

    def put(self, ref: SecretRef, payload: Payload) -> bool:
        """Add a version; return whether a value changed (an annotation is no value)."""
        known = self._current.get(ref)
        if known is not None and known.digest == payload.digest:
            return False
        if known is not None:
            self._previous[ref] = known
        self._current[ref] = payload
        return True

    def drop(self, ref: SecretRef) -> None:
        self._current.pop(ref, None)
        self._previous.pop(ref, None)

    def stale(self, ref: SecretRef, *, mounted: str) -> Payload | None:
        """Return the version of a cache without the newest change, or None if it is mounted.

        A cache never goes back: if the newest version is mounted, there is no stale one.
        """
        current, previous = self._current.get(ref), self._previous.get(ref)
        if current is None or mounted == current.digest or previous is None:
            return None
        return None if previous.digest == mounted else previous


class _Meta(msgspec.Struct):
    name: str
    namespace: str = "default"


class _Secret(msgspec.Struct):
    metadata: _Meta
    data: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(_Secret)


def decode_secret(data: bytes) -> tuple[SecretRef, Payload]:
    """Decode one Secret with its values.

    Raises:
        ProtocolError: Not a Secret, or a value is not base64; the message has none of the bytes.
    """
    try:
        raw = _DECODER.decode(data)
        values = {
            key: base64.b64decode(text, validate=True) for key, text in (raw.data or {}).items()
        }
    except (msgspec.DecodeError, binascii.Error):
        raise ProtocolError("the API server sent an invalid Secret") from None
    return SecretRef(raw.metadata.namespace, raw.metadata.name), Payload(values)
