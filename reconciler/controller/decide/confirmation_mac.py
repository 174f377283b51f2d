"""Signed annotation on a Secret: the platform has confirmed its session (pure)."""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from reconciler.clock import Instant
from reconciler.naming import SessionKey

_FORM = re.compile(r"v1\.[A-Za-z0-9_-]{40}")

_CONTEXT = b"runner-token-reconciler token-confirmed v1"


PREVIOUS_KEY_S = 900.0
"""How long after a change of the client secret a MAC under the previous key is valid: until each
replica has the new file (390 s on large clusters) and the leader has signed each Secret again. Not
longer: a previous secret may have leaked, and with it anyone can sign."""


def is_well_formed(mac: str) -> bool:
    """Return whether this has the form of a MAC; to know more one needs the key."""
    return _FORM.fullmatch(mac) is not None


class ConfirmationMac:
    """A MAC over namespace, session and the Secret's UID.

    A new leader trusts the confirmations of the last one while the platform is unreachable. A
    tenant who copies the annotation to another Secret, or creates the Secret again, gains nothing,
    since the API server assigns the UID. A keyed BLAKE2b (RFC 7693); its key is derived from the
    client secret, which every replica has and no tenant.

    Args:
        monotonic: Seconds on a clock that is never set, for the end of a previous key.
    """

    def __init__(self, secret: str, monotonic: Callable[[], Instant] = lambda: Instant(0)) -> None:
        self._monotonic = monotonic
        self._key = _key(secret)
        self._previous_key: bytes | None = None
        self.generation = 0
        """Number of keys before the current one; read only."""
        self.key_changed_at: Instant | None = None
        """When the secret changed last, by `monotonic`; None if it never did."""

    def set_key(self, secret: str) -> None:
        """Derive the key from another secret; the previous key is valid for `PREVIOUS_KEY_S`.

        A replica that starts later knows only the new secret, so that each Secret must be signed
        again.
        """
        if (key := _key(secret)) == self._key:
            return
        self._key, self._previous_key = key, self._key
        self.generation += 1
        self.key_changed_at = self._monotonic()

    def make(self, key: SessionKey, uid: str) -> str:
        return _mac(self._key, key, uid)

    def is_from_current_key(self, mac: str, key: SessionKey, uid: str) -> bool:
        """Return whether a MAC is valid under the current key."""
        return _is_equal(mac, self.make(key, uid))

    def is_from_previous_key(self, mac: str, key: SessionKey, uid: str) -> bool:
        """Return whether a MAC is valid, but under the previous key."""
        if self._previous_key is None or self.key_changed_at is None:
            return False
        if self._monotonic() - self.key_changed_at >= PREVIOUS_KEY_S:
            self._previous_key = None
            return False
        return _is_equal(mac, _mac(self._previous_key, key, uid))

    def __repr__(self) -> str:
        return "<ConfirmationMac>"


def _key(secret: str) -> bytes:
    # One digest is made per write: a keyed hash takes 1 us, an HMAC 10 us.
    return hmac.digest(secret.encode(), _CONTEXT, "sha256")


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _mac(mac_key: bytes, key: SessionKey, uid: str) -> str:
    parts = "\0".join((key.namespace, key.session_id, uid)).encode()
    mac = hashlib.blake2b(parts, key=mac_key, digest_size=30).digest()
    return "v1." + base64.urlsafe_b64encode(mac).decode()
