"""The mutants of the TOML files in this folder: what is replaced, and what must fail then.

A mutant replaces text that occurs exactly once in its file. After a rename or a rewrite of that
text `tests/unit/test_mutants.py` fails, and its author decides what the defence is now.
"""

import ast
import tomllib
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec.structs import replace

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
WITHOUT = FOLDER / "without.toml"
OUTSIDE = FOLDER / "outside.toml"


class MutantError(Exception):
    """A mutant does not apply: its text is not there once, or the replacement changes nothing."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One removed defence.

    Args:
        name: The defence, as a sentence that is false in the mutant.
        file: Path from the root of the tree.
        old: Text that occurs once in the file.
        new: What is there instead; "" removes it.
        rows: Starts of the faults in docs/failures.md that the defence is for; each names one row.
        promises: Numbers of the promises in ARCHITECTURE.md that it keeps.
        worlds: Worlds of the simulation that are tried first; see `adversary.py`.
        tests: Arguments of pytest that are tried next, in this order. A file costs all its tests
            up to the one that fails, so that the test is named. One that only hangs has a limit.
        outside: Why no world can show it, "" if one could; by default that of outside.toml.
    """

    name: str
    file: str
    old: str
    new: str = ""
    rows: tuple[str, ...] = ()
    promises: tuple[int, ...] = ()
    worlds: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    outside: str = ""

    def apply(self, source: str) -> str:
        """Return the file's text without the defence.

        Raises:
            MutantError: See there. A change of comments or layout alone changes nothing.
        """
        if (count := source.count(self.old)) != 1:
            raise MutantError(f"{self.name!r}: its text occurs {count} times in {self.file}")
        mutated = source.replace(self.old, self.new)
        if self.file.endswith(".py") and _meaning(mutated) == _meaning(source):
            raise MutantError(f"{self.name!r}: its replacement changes nothing")
        return mutated


class _File(msgspec.Struct):
    mutant: list[Mutant]


def load() -> list[Mutant]:
    """Return all mutants, in the order of the files."""
    files = (path for path in sorted(FOLDER.glob("*.toml")) if path not in (WITHOUT, OUTSIDE))
    starts = outside()
    return [
        replace(mutant, outside=mutant.outside or _reason(mutant.file, starts))
        for path in files
        for mutant in msgspec.toml.decode(path.read_bytes(), type=_File).mutant
    ]


def outside() -> dict[str, str]:
    """Return the starts of paths whose code no world runs, each with the reason."""
    return tomllib.loads(OUTSIDE.read_text())


def _reason(path: str, starts: dict[str, str]) -> str:
    return next((reason for start, reason in starts.items() if path.startswith(start)), "")


def unmutated_rows() -> dict[str, str]:
    """Return the starts of the faults that have no mutant, each with the reason."""
    return tomllib.loads(WITHOUT.read_text())


@lru_cache(maxsize=4)
def _meaning(source: str) -> str:
    return ast.dump(ast.parse(source))
