"""`python -m tests.release VERSION URL`: make a release; docs/release.md has the steps."""

import sys

from tests.image.build import ROOT, ImageError
from tests.release.release import ReleaseError, make, why_not


def main(version: str, url: str) -> int:
    remedies = why_not(version)
    for remedy in remedies:
        _say(f"no release of {version!r}: {remedy}")
    if remedies:
        return 1
    folder = ROOT / "build/release" / version
    try:
        make(folder, url=url.rstrip("/"), say=_say)
    except (ReleaseError, ImageError) as error:
        _say(str(error))
        return 1
    print(f"release {version}: {folder.relative_to(ROOT)}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
