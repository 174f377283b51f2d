"""Files that others rotate: a version that changes when they hold something else.

Certificates, keys, tokens and configurations are replaced under a running process, in one step (a
kubelet) or in place (a script): nothing tells of it but the files themselves. They are read each
time, since neither times nor sizes tell for certain that they are the same.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from reconciler.clock import Clock

LOOK_S = 5.0
"""Between looks: a kubelet takes ten times as long to bring a file, and a look at a bundle of CAs
costs 0.2 ms."""

SETTLED_S = 1.0
"""A file that was written this short a time ago may be half of what it will be."""


class FileRotation:
    """The version of some files: a digest of what they hold, looked up every `LOOK_S`.

    A change counts once nobody has written for `SETTLED_S`, or two looks that far apart have found
    the same: half of a file may be readable, too. Whoever uses the files compares the version with
    the one from *before* they were read.

    Args:
        paths: Returns the files of this moment. Of a folder its time of change counts alone.
    """

    def __init__(self, paths: Callable[[], Iterable[Path]], clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        self._version = ""
        self._next = ""
        self._look_at = -LOOK_S

    def version(self, *, fresh: bool = False) -> str:
        """Return the version as of the last look.

        Args:
            fresh: Look now, and take a change at once: what the files held before is of no use.
        """
        now_at = self._clock.monotonic()
        if now_at < self._look_at and not fresh:
            return self._version
        self._look_at = now_at + LOOK_S
        found, written_s = self._look()
        if found == self._version:
            self._next = ""
        elif fresh or not self._version or found == self._next or self._is_settled(written_s):
            self._version, self._next = found, ""
        else:
            self._next = found
            self._look_at = now_at + SETTLED_S
        return self._version

    def _is_settled(self, written_s: float) -> bool:
        return written_s <= self._clock.wall() - SETTLED_S

    def _look(self) -> tuple[str, float]:
        digest, written_s = file_digest(self._paths())
        return digest.hex(), written_s


def file_digest(paths: Iterable[Path]) -> tuple[bytes, float]:
    """Return a digest of what files hold, and when the last of them was written (epoch seconds).

    Of a folder its time of change counts alone; a file that cannot be read counts as that.
    """
    digest = hashlib.blake2b(digest_size=16)
    written_s = 0.0
    for path in paths:
        digest.update(f"\0{path}\0".encode(errors="surrogateescape"))
        try:
            state = path.stat()
            held = str(state.st_mtime_ns).encode() if path.is_dir() else path.read_bytes()
        except OSError as error:
            digest.update(f"\0{error.errno}".encode())
        else:
            written_s = max(written_s, state.st_mtime)
            digest.update(held)
    return digest.digest(), written_s
