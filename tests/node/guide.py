"""docs/install.md, read as the test follows it: the commands and files that it shows."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/install.md"


def blocks(language: str) -> list[str]:
    """Return the guide's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line and not line.startswith("#")]
