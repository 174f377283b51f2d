"""Files that other processes rotate: a version that changes with their content.

Certificates, keys, tokens and configurations are replaced while the process runs: in one step (a
kubelet) or in place (a script). There is no notification, so the files are read each time: equal
times and sizes do not prove equal content.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from reconciler.clock import EPOCH, LONG_AGO, Clock, EpochTime, Instant

LOOK_S = 5.0
"""Time between two checks: a kubelet takes ten times as long to update a file, and a check of a
bundle of CAs costs 0.2 ms."""

SETTLED_S = 1.0
"""A file that was written less than this ago may be incomplete."""


class FileRotation:
    """The version of some files: a digest of their content, checked every `LOOK_S`.

    A change counts once the files were not written for `SETTLED_S`, or two checks so far apart have
    found the same content: an incomplete file may be readable, too. A user of the files compares
    the version with the one from *before* it read them.

    Args:
        paths: Returns the current files. For a folder only its time of change counts.
    """

    def __init__(self, paths: Callable[[], Iterable[Path]], clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        self._version = ""
        self._next = ""
        self._look_at: Instant = LONG_AGO

    def version(self, *, fresh: bool = False) -> str:
        """Return the version of the last check.

        Args:
            fresh: Check now, and accept a change at once: the former content is of no use.
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

    def _is_settled(self, written_s: EpochTime) -> bool:
        return written_s <= self._clock.wall() - SETTLED_S

    def _look(self) -> tuple[str, EpochTime]:
        digest, written_s = file_digest(self._paths())
        return digest.hex(), written_s


def file_digest(paths: Iterable[Path]) -> tuple[bytes, EpochTime]:
    """Return a digest of the files' content, and the last time of writing (epoch seconds).

    For a folder only its time of change counts; for an unreadable file, the error number.
    """
    digest = hashlib.blake2b(digest_size=16)
    written_s = EPOCH
    for path in paths:
        digest.update(f"\0{path}\0".encode(errors="surrogateescape"))
        try:
            state = path.stat()
            held = str(state.st_mtime_ns).encode() if path.is_dir() else path.read_bytes()
        except OSError as error:
            digest.update(f"\0{error.errno}".encode())
        else:
            written_s = max(written_s, EpochTime(state.st_mtime))
            digest.update(held)
    return digest.digest(), written_s
