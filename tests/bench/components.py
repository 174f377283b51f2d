"""To which part of the product a stack of frames belongs (pure)."""

from collections.abc import Iterable
from pathlib import Path

import reconciler

PACKAGE = Path(reconciler.__file__).parent
OTHER = "other"
_PREFIX = f"{PACKAGE}/"

DIVIDED = ("controller",)
"""Folders that are large enough to be shown by what is in them."""


def component(files: Iterable[str]) -> str:
    """Return the part of the first file that is in `reconciler/`; `other` if none is.

    Args:
        files: Of the frames, innermost first.

    >>> component(["/lib/ssl.py", f"{PACKAGE}/informer/store.py", f"{PACKAGE}/entry.py"])
    'informer'
    >>> component([f"{PACKAGE}/controller/state/sessions.py"])
    'controller_state'
    >>> component([f"{PACKAGE}/clock.py"]), component(["/lib/ssl.py"])
    ('clock', 'other')
    """
    for file in files:
        if is_product(file):
            first, *rest = Path(file).relative_to(PACKAGE).with_suffix("").parts
            return f"{first}_{rest[0]}" if first in DIVIDED and rest else first
    return OTHER


def is_product(file: str) -> bool:
    return file.startswith(_PREFIX)
