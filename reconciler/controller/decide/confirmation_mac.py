"""Proof, kept on a Secret, that the platform once confirmed its session there (pure)."""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from reconciler.naming import SessionKey

_FORM = re.compile(r"v1\.[A-Za-z0-9_-]{40}")

_CONTEXT = b"runner-token-reconciler token-confirmed v1"


PREVIOUS_KEY_S = 900.0
"""For so long after a change of the secret a seal under the former key is believed: until each
replica has the new file (390 s on large clusters) and the leader has made each seal again. Not
longer: a former secret may have leaked, and whoever holds it can make seals."""


def is_well_formed(seal: str) -> bool:
    """Whether this may be a seal: all that one who lacks the key can tell."""
    return _FORM.fullmatch(seal) is not None


class ConfirmationMac:
    """A MAC over namespace, session and the Secret's UID.

    A new leader trusts what an old one confirmed while the platform is away; a tenant who copies
    the annotation to another Secret, or makes the Secret anew, gains nothing, since the UID is the
    server's. A keyed BLAKE2b (RFC 7693); its key is derived from the client secret, which every
    replica holds and no tenant.

    Args:
        monotonic: Seconds on a clock that is never set, for the end of a former key.
    """

    def __init__(self, secret: str, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        self._monotonic = monotonic
        self._key = _key(secret)
        self._former: bytes | None = None
        self.generation = 0
        """How many keys there were before the one of now; read only."""
        self.renewed_at: float | None = None
        """When the secret changed the last time, by `monotonic`; None if it never did."""

    def set_key(self, secret: str) -> None:
        """Take the key from another secret from now on; the one before is believed for
        `PREVIOUS_KEY_S`.

        Whoever starts later knows the new secret alone, so that each seal is to be made again.
        """
        if (key := _key(secret)) == self._key:
            return
        self._key, self._former = key, self._key
        self.generation += 1
        self.renewed_at = self._monotonic()

    def make(self, key: SessionKey, uid: str) -> str:
        return _mac(self._key, key, uid)

    def is_valid(self, seal: str, key: SessionKey, uid: str) -> bool:
        """Tell whether a seal is of this session and object, under either key."""
        return self.is_from_current_key(seal, key, uid) or self.is_from_previous_key(seal, key, uid)

    def is_from_current_key(self, seal: str, key: SessionKey, uid: str) -> bool:
        """Tell whether a seal is valid under the key of now."""
        return _is_equal(seal, self.make(key, uid))

    def is_from_previous_key(self, seal: str, key: SessionKey, uid: str) -> bool:
        """Tell whether a seal is valid, but under the former key."""
        if self._former is None or self.renewed_at is None:
            return False
        if self._monotonic() - self.renewed_at >= PREVIOUS_KEY_S:
            self._former = None
            return False
        return _is_equal(seal, _mac(self._former, key, uid))

    def __repr__(self) -> str:
        return "<Seal>"


def _key(secret: str) -> bytes:
    # One digest is made per write, so a keyed hash of 1 us is worth having over HMAC's 10 us.
    return hmac.digest(secret.encode(), _CONTEXT, "sha256")


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _mac(mac_key: bytes, key: SessionKey, uid: str) -> str:
    parts = "\0".join((key.namespace, key.session_id, uid)).encode()
    mac = hashlib.blake2b(parts, key=mac_key, digest_size=30).digest()
    return "v1." + base64.urlsafe_b64encode(mac).decode()
