"""Build one program with Go into the cache; an interrupted build leaves nothing behind."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.assets import locate
from tests.assets.programs import Program

PROGRESS_S = 15.0
TAIL_LINES = 15
NICENESS = 10
"""A build of minutes on every core should not make the machine unusable."""

_UNFINISHED = "unfinished-"

Say = Callable[[str], None]


class BuildError(Exception):
    """A program could not be built; the message says what to do about it."""


@contextmanager
def sole_builder(say: Say) -> Iterator[None]:
    """Hold the cache's lock: one build at a time, by any process of this user.

    The kernel drops the lock with its holder, so a killed build locks no other build out. What such
    a build left half done is removed here: no other build can be in progress.
    """
    cache = locate.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def build(program: Program, say: Say) -> Path:
    """Build `program` and move it into the cache in one step; return its path there.

    Raises:
        BuildError: No Go, or it failed, or the result does not run. The cache is unchanged.
    """
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            f"{program.name} {program.version} must be built and there is no `go` on PATH: "
            "install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder that has "
            "etcd, kube-apiserver and kubectl"
        )
    target = locate.cached(program)
    # Beside the target, so that the rename stays within one file system.
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=locate.cache_dir()))
    try:
        built = folder / program.name
        seconds = _compile(go, program, built, say)
        result = locate.check(program, built, pinned=True)
        if isinstance(result, locate.Rejected):
            raise BuildError(f"{program.name} was built and {result.reason}")
        size_mb = built.stat().st_size / 1e6
        target.parent.mkdir(parents=True, exist_ok=True)
        built.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{program.name} {program.version}: built in {seconds:.0f} s, {size_mb:.0f} MB")
    return target


def _compile(go: str, program: Program, output: Path, say: Say) -> float:
    """Run `go build` with a line of progress every `PROGRESS_S`; return the seconds it took."""
    command = [
        go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
        "-tags", ",".join(program.tags), "-ldflags", program.ldflags,
        "-o", str(output), program.package,
    ]  # fmt: skip
    # The pins decide, not a workspace or a cross-compilation that the caller happens to have.
    environment = os.environ | {
        "CGO_ENABLED": "1" if program.cgo else "0", "GOWORK": "off", "GOOS": "", "GOARCH": "",
    }  # fmt: skip
    log = output.with_suffix(".log")
    started_at = time.monotonic()
    say(f"{program.name} {program.version}: building (minutes, if Go's cache has none of it)")
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=program.module, env=environment, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        while (code := _wait(process)) is None:
            elapsed_s = time.monotonic() - started_at
            say(f"{program.name} {program.version}: building, {elapsed_s:.0f} s{_now(log)}")
    finally:
        # Interrupted: go has started compilers, and all of them must go with it.
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise BuildError(f"go build of {program.name} failed (exit {code}):\n{tail}")
    return time.monotonic() - started_at


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(PROGRESS_S)
    except subprocess.TimeoutExpired:
        return None


def _now(log: Path) -> str:
    """Return what go said last: it only speaks while it downloads."""
    lines = log.read_text(errors="replace").splitlines()
    return f" ({lines[-1]})" if lines else ""
