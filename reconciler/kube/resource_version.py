"""Compares two resource versions, where they are comparable (pure)."""


def is_newer(version: str, than: str) -> bool:
    """Return True where both are well-formed and `version` is the greater; False if unknown.

    Source: apimachinery `pkg/util/resourceversion`: digits without a leading zero are comparable
    within one kind (KEP-5504), other versions are opaque. As plain text "9" would be above "10".
    """
    left, right = _order(version), _order(than)
    return left is not None and right is not None and left > right


def has_reached(version: str, target: str) -> bool:
    """Return True where `version` is known to be `target` or newer."""
    return version == target or is_newer(version, target)


def _order(version: str) -> tuple[int, str] | None:
    """Return a key with the order of the number; int() refuses more than 4,300 digits."""
    if not (version.isascii() and version.isdigit()) or version[0] == "0":
        return None
    return len(version), version
