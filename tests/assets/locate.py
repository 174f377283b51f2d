"""Find the programs: KUBEBUILDER_ASSETS, then our cache, then (kubectl only) PATH."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.assets.programs import PROGRAMS, Program

ASK_LIMIT_S = 30.0
"""A cold disk under load needs seconds to map 120 MB; a healthy binary answers in 0.1 s."""


@dataclass(frozen=True, slots=True)
class Found:
    """A binary that ran: where it is, and the first line of what it called itself."""

    program: Program
    path: Path
    answer: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that has the right name and cannot be used, and why."""

    path: Path
    reason: str


def cache_dir() -> Path:
    """Return the folder of finished binaries; it may not exist yet."""
    own = os.environ.get("RECONCILER_CACHE")
    if own:
        return Path(own) / "assets"
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "runner-token-reconciler" / "assets"


def cached(program: Program) -> Path:
    """Return where the cache keeps `program`, for this version, system and processor."""
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    folder = f"{program.name}-{program.version}-{platform.system().lower()}-{arch}"
    return cache_dir() / folder / program.name


def check(program: Program, path: Path, *, pinned: bool) -> Found | Rejected:
    """Run `path` and ask for its version: a file that is there may still not work.

    Args:
        pinned: Reject any version but ours. A folder that the user named may hold another.
    """
    try:
        asked = subprocess.run(
            [path, *program.ask], capture_output=True, text=True, timeout=ASK_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Rejected(path, f"does not run: {error}")
    if asked.returncode != 0:
        return Rejected(path, f"{' '.join(program.ask)} exits {asked.returncode}")
    said = asked.stdout or asked.stderr  # kube-router's goes to the latter
    answer = said.strip().partition("\n")[0]
    if pinned and not program.says(said):
        return Rejected(path, f"is {answer!r}, not {program.version}")
    return Found(program, path, answer)


def search(program: Program) -> tuple[Found | None, list[Rejected]]:
    """Return the first usable binary of `program`, and the candidates that were passed over."""
    rejected: list[Rejected] = []
    for path, pinned in _candidates(program):
        result = check(program, path, pinned=pinned)
        if isinstance(result, Found):
            return result, rejected
        rejected.append(result)
    return None, rejected


def find(programs: Iterable[Program] = PROGRAMS) -> dict[str, Path]:
    """Return name -> path of each program that is there and runs; builds nothing.

    Cost: one start of each binary, about 0.3 s in all.
    """
    results = ((program, search(program)[0]) for program in programs)
    return {program.name: found.path for program, found in results if found}


def _candidates(program: Program) -> Iterator[tuple[Path, bool]]:
    """Yield the existing files to try, best first, and whether each must be the pinned version."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if named and (path := Path(named) / program.name).is_file():
        yield path.absolute(), program.is_pinned
    if (path := cached(program)).is_file():
        yield path, True
    if program.any_on_path and (on_path := shutil.which(program.name)):
        yield Path(on_path), False
