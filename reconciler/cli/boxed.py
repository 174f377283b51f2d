"""What the commands of the box share: its packages are optional, and delays come as `A-B`."""

import re
from importlib.util import find_spec

from reconciler.errors import SettingsError

_NEEDED = ("grpc", "joserfc")
_DELAY = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")


def import_lab() -> None:
    """Raise `SettingsError` where the box's packages are not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            "the cluster in a box needs packages that are not installed"
            f" ({', '.join(missing)}): pip install 'runner-token-reconciler[lab]'"
        )


def parse_delay(text: str) -> tuple[float, float]:
    """Read `A-B`, or one number for both, in seconds; raises `SettingsError`."""
    found = _DELAY.fullmatch(text.strip())
    low, high = (float(found[1]), float(found[2] or found[1])) if found else (1.0, 0.0)
    if low > high:
        raise SettingsError(f"--projection-delay {text!r}: not of the form A-B, seconds, A <= B")
    return low, high
