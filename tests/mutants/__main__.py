"""`python -m tests.mutants`: apply each mutant in a copy of the tree, and print what fails with it.

The adversary is tried first: the worlds of the mutant, then the sentences of the first seeds. The
mutant's tests are tried next. What has failed is run once more without the mutant and must pass
there. Results are kept in build/mutants.json, by a digest of the mutant, the product and the
mutant's tests: a second run continues where the first one ended.

Exit codes: 0 every mutant was killed; 1 otherwise.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.mutants.catalogue import ROOT, Mutant, load

RESULTS = ROOT / "build" / "mutants.json"
LIMIT_S = 600.0
"""Longest run of one command. A test that hangs fails sooner, by pytest's own limit; a command that
takes longer shows nothing."""
SURVIVED = "survived"

ADVERSARY = "adversary"

_VIOLATED = re.compile(r"^violated: (.*)", re.MULTILINE)
_FAILED = re.compile(r"^FAILED (tests/.+?)(?: - .*)?$", re.MULTILINE)

SCRIPTS = ("reconciler", "kubectl-token_reconciler")


class SelectionError(Exception):
    """No result: no test is selected, a test file cannot be imported, or the limit is over."""


class Copy:
    """A copy of the tree with an interpreter that imports its product.

    Tests start processes without our environment, by `sys.executable` or by the scripts next to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (source := ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, folder / name)
        venv.create(folder / ".venv", symlinks=True)
        self._bin = folder / ".venv" / "bin"
        packages = sysconfig.get_path("purelib")
        own = sysconfig.get_path("purelib", vars={"base": str(folder / ".venv")})
        Path(own, "copy.pth").write_text(f"{folder}\n{packages}\n")
        for name in SCRIPTS:
            script = Path(sys.executable).with_name(name).read_text().splitlines(keepends=True)
            (self._bin / name).write_text(f"#!{self._bin}/python\n{''.join(script[1:])}")
            (self._bin / name).chmod(0o755)

    @contextmanager
    def without_defence(self, mutant: Mutant) -> Iterator[None]:
        """Apply a mutant while the block runs."""
        path = self.folder / mutant.file
        path.write_text(mutant.apply(path.read_text()))
        # Python recognises a changed module by its time in whole seconds and its size.
        os.utime(path, (path.stat().st_mtime + 10,) * 2)
        try:
            yield
        finally:
            shutil.copy2(ROOT / mutant.file, path)

    def simulate(self, worlds: Sequence[str]) -> str:
        """Return the first world that violates an invariant, with the invariant; "" for none."""
        if not worlds:
            return ""
        code, output = self._run(["python", "-m", "tests.mutants.adversary", *worlds])
        if code == 0:
            return ""
        found = _VIOLATED.search(output)
        return found[1] if found else f"{worlds[0]}: {output.strip().splitlines()[-1]}"

    def test(self, selection: Sequence[str]) -> str:
        """Return the first test that fails; "" for none.

        Raises:
            SelectionError: pytest has run no test.
        """
        command = ["python", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *selection]
        code, output = self._run(command)
        if code == 0:
            return ""
        if code != 1 or not (found := _FAILED.search(output)):
            raise SelectionError(f"pytest {' '.join(selection)} has exit code {code}")
        return found[1]

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Return the exit code and the output; raises `SelectionError` beyond `LIMIT_S`."""
        process = subprocess.Popen(
            [self._bin / command[0], *command[1:]], cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise SelectionError(f"{' '.join(command)} takes longer than {LIMIT_S:g} s") from None
        return process.returncode, output


class Results:
    """The killer of each mutant, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def killer(self, digest: str) -> str | None:
        """Return the killer of a former run, or None."""
        found = self._read().get(digest)
        return None if found is None else str(found["killer"])

    def put(self, digest: str, mutant: Mutant, killer: str, seconds: float) -> None:
        """Keep a result; a run of other mutants may write the file, too."""
        with self._lock:
            found = self._read()
            found[digest] = {"name": mutant.name, "killer": killer, "seconds": round(seconds, 1)}
            self._path.parent.mkdir(exist_ok=True)
            whole = self._path.with_suffix(".new")  # others read at the same time
            whole.write_text(json.dumps(found, indent=1, sort_keys=True))
            whole.replace(self._path)

    def _read(self) -> dict[str, dict[str, object]]:
        if not self._path.exists():
            return {}
        found: dict[str, dict[str, object]] = json.loads(self._path.read_text())
        return found


def digest_of(mutant: Mutant, product: bytes, options: argparse.Namespace) -> str:
    """Return a digest of all that decides on a mutant's result."""
    digest = hashlib.sha256(product)
    digest.update(json.dumps([msgspec.to_builtins(mutant), options.seeds], sort_keys=True).encode())
    for selection in mutant.tests:
        for word in selection.split():
            if (path := ROOT / word.partition("::")[0]).is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()


def product_digest() -> bytes:
    digest = hashlib.sha256()
    for folder in ("reconciler", "manifests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path).encode() + path.read_bytes())
    return digest.digest()


def find_killer(copy: Copy, mutant: Mutant, seeds: int) -> str:
    """Return what fails with a mutant and passes without it; `SURVIVED` if nothing does.

    Args:
        seeds: Number of sentences that are played besides the mutant's own worlds.
    """
    drawn = () if mutant.outside else map(str, range(seeds))
    with copy.without_defence(mutant):
        if found := copy.simulate(tuple(dict.fromkeys([*mutant.worlds, *drawn]))):
            return f"{ADVERSARY}, {found}"
        for selection in mutant.tests:
            if found := copy.test(selection.split()):
                return found
    return SURVIVED


def main(arguments: list[str]) -> int:
    """Print a table of the mutants and their killers."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--workers", type=int, default=2, help="copies of the tree, one core each")
    parser.add_argument(
        "--seeds", type=int, default=0, help="sentences for each mutant besides its own worlds"
    )
    parser.add_argument("names", nargs="*", help="parts of mutants' names or files; default: all")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in load()
        if not options.names or any(n in mutant.name or n in mutant.file for n in options.names)
    ]
    for name in options.names:
        if not any(name in mutant.name or name in mutant.file for mutant in mutants):
            parser.error(f"no mutant has {name!r} in its name or file")
    results, product = Results(RESULTS), product_digest()
    killers: dict[str, str] = {}
    copies: SimpleQueue[Copy] = SimpleQueue()

    def kill(mutant: Mutant) -> None:
        digest = digest_of(mutant, product, options)
        killer = results.killer(digest)
        if killer is None:
            began = time.monotonic()
            copy = copies.get()
            try:
                killer = find_killer(copy, mutant, options.seeds)
            except SelectionError as error:
                killer = f"{SURVIVED} {error}"
            finally:
                copies.put(copy)
            if not killer.startswith(SURVIVED):  # a missing test is looked for again
                results.put(digest, mutant, killer, time.monotonic() - began)
        killers[mutant.name] = killer
        _print(f"{mutant.name:70} {killer}")

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for number in range(options.workers):
            copies.put(Copy(Path(folder) / str(number)))
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(kill, mutants))
        broken = _failing_without(copies.get(), set(killers.values()), options.workers)
    return _report(mutants, killers, broken)


def _failing_without(copy: Copy, killers: set[str], workers: int) -> str:
    """Return a killer that fails without any mutant, too; "" for none."""
    worlds = {
        one.removeprefix(f"{ADVERSARY}, ").partition(": ")[0]
        for one in killers
        if one.startswith(ADVERSARY)
    }
    tests = sorted(one for one in killers if one.startswith("tests/"))
    processes = ["-n", str(min(workers, len(tests))), "--dist", "loadfile"]
    return copy.simulate(sorted(worlds)) or (copy.test([*processes, *tests]) if tests else "")


def _report(mutants: Sequence[Mutant], killers: Mapping[str, str], broken: str) -> int:
    kinds = Counter(map(_kind, killers.values()))
    _print(f"\n{len(killers)} mutants")
    for kind, count in kinds.most_common():
        _print(f"{count:5} {kind}")
    within = [mutant for mutant in mutants if not mutant.outside]
    found = sum(_kind(killers[mutant.name]) == ADVERSARY for mutant in within)
    _print(f"{len(within)} within the adversary's reach, {found} of them killed by it")
    for reason, count in Counter(each.outside for each in mutants if each.outside).most_common():
        _print(f"{count:5} beyond its reach: {reason}")
    if broken:
        _print(f"fails without any mutant: {broken}")
    return 1 if broken or kinds[SURVIVED] else 0


def _kind(killer: str) -> str:
    """Return what a killer is counted as: the adversary, or a folder of tests."""
    for kind in (SURVIVED, ADVERSARY):
        if killer.startswith(kind):
            return kind
    return os.path.dirname(killer.partition("::")[0])


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
