"""`python -m tests.image`: build the image on a base of this machine's own."""

import sys
from pathlib import Path

from tests.image.build import BASE, IMAGE, ImageError, build, size

ARCHIVE = Path("build/image.tar")


def main() -> int:
    try:
        build(ARCHIVE.absolute(), _say)
    except ImageError as error:
        _say(str(error))
        return 1
    base_bytes = size(BASE)
    own_mb, base_mb = (size(IMAGE) - base_bytes) / 1e6, base_bytes / 1e6
    print(f"{IMAGE}: {own_mb:.0f} MB beside a base of {base_mb:.0f} MB, {ARCHIVE}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
