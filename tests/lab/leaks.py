"""What a whole cluster or a whole run shows, searched for values that must not leave it."""

from collections.abc import Iterable, Mapping

import msgspec

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from tests.secrecy.search import SecretIndex


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
    index = SecretIndex(secrets)
    return [name for name, text in texts.items() if index.source_of(text)]
