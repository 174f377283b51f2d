"""The search for values that must not leave the processes: whole, in part, or encoded."""

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core

JWT_LIKE = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
"""A JWT's header and the beginning of its claims; needs no knowledge of the run."""

LAB_CREDENTIAL = re.compile(r"lab-(?:client|admin|reconciler|kubelet)-[0-9a-f]{8,}")
"""The client secret and the bearer tokens of a lab cluster."""

_MASKED = msgspec.json.encode("masked")


def needles(secrets: Iterable[str]) -> set[str]:
    """Return the texts to find: values, a JWT's claims and signature alone, base64, URL form."""
    found: set[str] = set()
    for value in secrets:
        parts = [value, *value.split(".")[1:]]
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")
        found |= {part for part in [*parts, quote(value, safe=""), encoded] if len(part) >= 8}
    return found


def core_texts(core: Core) -> dict[str, str]:
    """Return every object of a core as text, without the values of Secrets."""
    texts = {}
    for kind in kinds.STORED:
        for item in core.list(kind).items:
            shown = {k: v for k, v in item.items() if kind is not kinds.SECRETS or k != "data"}
            name = f"{kind.plural} {item['metadata'].get('namespace')}/{item['metadata']['name']}"
            texts[name] = msgspec.json.encode(shown).decode()
    return texts


def find_leaks(texts: Mapping[str, str], secrets: Iterable[str] = ()) -> list[str]:
    """Return the names of the texts that contain a secret, never the secret."""
    wanted = needles(secrets)
    return [
        name
        for name, text in texts.items()
        if JWT_LIKE.search(text)
        or LAB_CREDENTIAL.search(text)
        or any(needle in text for needle in wanted)
    ]
