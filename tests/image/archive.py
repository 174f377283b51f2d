"""Archives whose bytes depend on the names, modes and contents of their files alone."""

import gzip
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO


def pack(folder: Path, archive: Path, *, compressed: bool = False) -> None:
    """Write a folder's files as a tar, owned by root and dated 1970; replace `archive` at once."""
    unfinished = archive.with_name(f"{archive.name}.unfinished")
    with ExitStack() as stack:
        sink: BinaryIO | gzip.GzipFile = stack.enter_context(unfinished.open("wb"))
        if compressed:
            sink = stack.enter_context(gzip.GzipFile("", "wb", fileobj=sink, mtime=0))
        tar = stack.enter_context(tarfile.open(fileobj=sink, mode="w", dereference=True))
        for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
            _add(tar, path, str(path.relative_to(folder)))
    unfinished.replace(archive)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tar.gettarinfo(path, name)
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    with path.open("rb") as content:
        tar.addfile(member, content)


def digest(archive: Path) -> str:
    """Return the digest of an OCI archive's one manifest: what a registry answers for the image."""
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        [manifest] = json.load(index)["manifests"]
        return str(manifest["digest"])
