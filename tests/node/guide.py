"""The commands and files in the guides, which the tests use."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
INSTALL, MIGRATE, RELEASE, UPGRADE = (
    DOCS / f"{name}.md" for name in ("install", "migrate", "release", "upgrade")
)


def blocks(language: str, *, under: str, guide: Path = INSTALL) -> list[str]:
    """Return the code blocks of one language below a heading of a guide, in order."""
    _, _, rest = guide.read_text().partition(f"\n## {under}\n")
    section, _, _ = rest.partition("\n## ")
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line and not line.startswith("#")]
