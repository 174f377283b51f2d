"""`python -m tests.image`: build the image on a base of this machine's own."""

import sys
from pathlib import Path

from tests.image.build import IMAGE, ImageError, build

ARCHIVE = Path("build/image.tar")


def main() -> int:
    try:
        built = build(ARCHIVE.absolute(), _say)
    except ImageError as error:
        _say(str(error))
        return 1
    print(
        f"{IMAGE}: {built.own_bytes / 1e6:.0f} MB beside a base of {built.base_bytes / 1e6:.0f} MB,"
        f" {ARCHIVE}"
    )
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
