"""A tiny issuer: RS256 tokens that expire when a test says."""

from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from reconciler.clock import EpochTime


class Issuer:
    """Signs tokens; every one of them is remembered for the search for leaks."""

    def __init__(self) -> None:
        self._key = RSAKey.generate_key(2048)
        self.issued: list[str] = []

    def token(self, expires_at_s: EpochTime) -> str:
        claims = {"exp": int(expires_at_s), "jti": str(len(self.issued))}
        self.issued.append(jwt.encode({"alg": "RS256"}, claims, self._key))
        return self.issued[-1]

    def verify(self, token: str) -> Mapping[str, Any]:
        return jwt.decode(token, self._key, algorithms=["RS256"]).claims
