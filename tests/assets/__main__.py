"""`python -m tests.assets`: find the programs, build what is missing.

Exit codes: 0 all are there; 1 some are missing or cannot be built; 130 interrupted.
"""

import argparse
import signal
import sys
from types import FrameType

from tests.assets import build, issuers, locate
from tests.assets.axe_core import AXE_PACKAGE
from tests.assets.definitions import DEFINITIONS
from tests.assets.programs import (
    HYDRA_PROGRAM,
    NODE_PROGRAMS,
    OLDEST_APISERVER,
    PROGRAMS,
    Program,
)
from tests.assets.typescript import TYPESCRIPT_PACKAGE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.assets", description=__doc__)
    parser.add_argument(
        "--print", action="store_true", help="print `name path` lines and build nothing"
    )
    parser.add_argument(
        "--node", action="store_true", help="what a whole node needs as well, minutes more"
    )
    parser.add_argument(
        "--issuers", action="store_true", help="every issuer of the tests, not Keycloak alone"
    )
    arguments = parser.parse_args()
    programs = (*PROGRAMS, OLDEST_APISERVER, *(NODE_PROGRAMS if arguments.node else ()))
    packages = (
        *(issuers.PACKAGES if arguments.issuers else issuers.PACKAGES[:1]),
        *DEFINITIONS,
        TYPESCRIPT_PACKAGE,
        AXE_PACKAGE,
    )
    if arguments.issuers:
        programs = (*programs, HYDRA_PROGRAM)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.print:
            return _print(programs, packages)
        return _provide(programs, packages)
    except build.BuildError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted; nothing half-built was kept")
        return 130


def _print(programs: tuple[Program, ...], packages: tuple[issuers.Package, ...]) -> int:
    """Print what is there, one `name path` a line; what is missing goes to stderr."""
    missing: list[str] = []
    for program in programs:
        found = _search(program)
        if found is None:
            missing.append(f"{program.name} {program.version}")
        else:
            print(program.name, found.path)
    for package in packages:
        if (path := issuers.find(package)) is None:
            missing.append(f"{package.name} {package.version}")
        else:
            print(package.name, path)
    if missing:
        _say(f"missing: {', '.join(missing)}; build with: make assets")
    return 1 if missing else 0


def _provide(programs: tuple[Program, ...], packages: tuple[issuers.Package, ...]) -> int:
    for program in programs:
        found = _search(program)
        if found is None:
            with build.sole_builder(_say):
                # Whoever held the lock before us may have built it.
                found = _search(program) or _built(program)
        size_mb = found.path.stat().st_size / 1e6
        print(f"{program.name}: {found.answer}, {size_mb:.0f} MB, {found.path}", flush=True)
    for package in packages:
        print(f"{package.name}: {package.version}, {issuers.provide(package, _say)}", flush=True)
    return 0


def _built(program: Program) -> locate.Found:
    result = locate.check(program, build.build(program, _say), pinned=True)
    if isinstance(result, locate.Rejected):
        raise build.BuildError(f"{result.path} {result.reason}")
    return result


def _search(program: Program) -> locate.Found | None:
    found, rejected = locate.search(program)
    for one in rejected:
        _say(f"passed over {one.path}: {one.reason}")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let SIGTERM unwind like Ctrl-C, so that the compilers are ended and the lock is released."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
