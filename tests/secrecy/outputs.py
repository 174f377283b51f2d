"""What a test knows as secret, and what left the product during it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import msgspec

from reconciler.lab.apiserver.handlers import PREFIX
from tests.secrecy.search import SHORTEST, SecretIndex, words

SPANS = "/v1/traces"

ADMISSION = b'{"kind":"AdmissionReview"'
"""How the API server begins a request to a webhook."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Where a secret came out, and whose it is; never the secret."""

    place: str
    source: str

    def __str__(self) -> str:
        return f"{self.place} has {self.source}, or a part of it"


class Outputs:
    """The secrets of a module of tests, and the words that left the product in one test.

    Secrets outlive the test that made them, since servers do: those of a module end with it, the
    lasting ones never. Nothing is kept before `is_on`: benches use doubles of the tests for hours.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._index = SecretIndex()
        self._lasting: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._parts: dict[tuple[str, int], list[bytes]] = {}

    def add_secret(self, value: object, source: str, *, lasting: bool = False) -> None:
        """Register a value that must not come out.

        Args:
            source: Its kind, for a message.
            lasting: Whether it is valid in the modules that follow, too.
        """
        if self.is_on and isinstance(value, str) and len(value) >= SHORTEST:
            self._index.add(value, source)
            if lasting:
                self._lasting[value] = source

    def forget_module(self) -> None:
        """Forget what belongs to the module that ends."""
        self._index = SecretIndex()
        for value, source in self._lasting.items():
            self._index.add(value, source)

    def left(self, place: str, text: str | bytes) -> None:
        """Note a text that left the product."""
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        for word in words(text) if self.is_on else ():
            self._places.setdefault(word, place)

    def left_in_parts(self, place: str, stream: int, data: bytes) -> None:
        """Note a part of a stream, whose words may go on in the next one."""
        if self.is_on:
            self._parts.setdefault((place, stream), []).append(data)

    def drop(self) -> None:
        """Forget what has left since the last call of `take_leaks`."""
        self._places, self._parts = {}, {}

    def take_leaks(self) -> list[Leak]:
        """Return the leaks since the last call, one for each place and source, and start again."""
        for (place, _), parts in self._parts.items():
            self.left(place, b"".join(parts))
        places, self._places, self._parts = self._places, {}, {}
        find = self._index.source_of_word
        found = {
            Leak(place, source): None for word, place in places.items() if (source := find(word))
        }
        return sorted(found, key=str)


# What may carry a secret. Each function removes exactly that, and leaves the rest to the search.


def head_of(target: str, headers: Mapping[str, str]) -> str:
    """Return the head of a request without its credentials.

    The API server, the platform, the issuer and a proxy know the caller by a header of its own; a
    collector of spans gets none of these secrets. A kubeconfig that a lab writes for kubectl has
    the credential in the URL: kubectl sends none over plain HTTP.
    """
    path, _, query = target.partition("?")
    if path.startswith(PREFIX):
        path = "/" + path.removeprefix(PREFIX).partition("/")[2]
    allowed = () if path.endswith(SPANS) else ("authorization", "proxy-authorization")
    texts = [value for name, value in headers.items() if name.lower() not in allowed]
    return "\n".join([path, query, *texts])


def body_of(path: str, content_type: str, body: bytes) -> bytes:
    """Return the body of a request without the secret that it is there to carry.

    The token in a Secret that is written, also where the API server sends it to an admission
    webhook; the client's secret in a request for a token (RFC 6749 2.3.1).
    """
    if body.startswith(ADMISSION):
        request = msgspec.json.decode(body)["request"]
        plural = request["resource"]["resource"]
        return b"\n".join(object_of(plural, request.get(name)) for name in ("object", "oldObject"))
    if "/secrets" in path and "json" in content_type:
        with suppress(msgspec.DecodeError):
            return object_of("secrets", msgspec.json.decode(body))
    if content_type.startswith("application/x-www-form-urlencoded"):
        form = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
        if ("grant_type", "client_credentials") in form:
            return urlencode([each for each in form if each[0] != "client_secret"]).encode()
    return body


def object_of(plural: str, found: object) -> bytes:
    """Return an object, or a patch of one, without the values of a Secret."""
    if plural == "secrets" and isinstance(found, Mapping):
        found = {name: part for name, part in found.items() if name not in ("data", "stringData")}
    return msgspec.json.encode(found)


OUTPUTS = Outputs()
"""Those of this process."""
