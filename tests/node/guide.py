"""docs/install.md, read as the test follows it: the commands and files that it shows."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/install.md"


def blocks(language: str, *, under: str) -> list[str]:
    """Return the code blocks of one language below a heading of the guide, in order."""
    _, _, rest = GUIDE.read_text().partition(f"\n## {under}\n")
    section, _, _ = rest.partition("\n## ")
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line and not line.startswith("#")]
