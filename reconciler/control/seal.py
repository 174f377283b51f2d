"""Proof, kept on a Secret, that the platform once confirmed its session there (pure)."""

import base64
import hashlib
import hmac

from reconciler.names import SessionKey

_CONTEXT = b"runner-token-reconciler token-confirmed v1"


class Seal:
    """A MAC over namespace, session and the Secret's UID.

    A new leader trusts what an old one confirmed while the platform is away; a tenant who copies
    the annotation to another Secret, or makes the Secret anew, gains nothing, since the UID is the
    server's. A keyed BLAKE2b (RFC 7693); its key is derived from the client secret, which every
    replica holds and no tenant.
    """

    def __init__(self, secret: str) -> None:
        self._key = self._former = _key(secret)

    def renew(self, secret: str) -> None:
        """Take the key from another secret from now on; seals under the one before stay valid.

        Whoever starts later knows the new secret alone: each write brings its seal along.
        """
        self._key, self._former = _key(secret), self._key

    def make(self, key: SessionKey, uid: str) -> str:
        return _seal(self._key, key, uid)

    def is_valid(self, seal: str, key: SessionKey, uid: str) -> bool:
        found = seal.encode()
        return any(
            hmac.compare_digest(found, _seal(each, key, uid).encode())
            for each in (self._key, self._former)
        )

    def __repr__(self) -> str:
        return "<Seal>"


def _key(secret: str) -> bytes:
    # One digest is made per write, so a keyed hash of 1 us is worth having over HMAC's 10 us.
    return hmac.digest(secret.encode(), _CONTEXT, "sha256")


def _seal(mac_key: bytes, key: SessionKey, uid: str) -> str:
    parts = "\0".join((key.namespace, key.session_id, uid)).encode()
    mac = hashlib.blake2b(parts, key=mac_key, digest_size=30).digest()
    return "v1." + base64.urlsafe_b64encode(mac).decode()
