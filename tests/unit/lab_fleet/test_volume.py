"""A reader of a volume sees one whole version or another, never a part."""

import stat
import threading
from pathlib import Path

from reconciler.lab.kubelet import kubelet

SWAPS = 100


def test_names_point_through_the_data_link(tmp_path: Path) -> None:
    kubelet.project_files(tmp_path / "v", {"bot-token": b"one"})

    file = tmp_path / "v" / "bot-token"
    assert str(file.readlink()) == "..data/bot-token"
    assert file.read_bytes() == b"one"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_old_version_is_removed(tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        kubelet.project_files(tmp_path, {"bot-token": content})

    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(names)[-1] == "bot-token"
    assert len(names) == 3
    assert (tmp_path / "bot-token").read_bytes() == b"three"


def test_swap_never_exposes_a_torn_file(tmp_path: Path) -> None:
    versions = [bytes([65 + number % 26]) * 50_000 for number in range(SWAPS)]
    kubelet.project_files(tmp_path, {"bot-token": versions[0]})
    done = threading.Event()
    seen: list[bytes | OSError] = []

    def read() -> None:
        while not done.is_set():
            try:
                descriptor = (tmp_path / "bot-token").open("rb")
            except OSError as error:
                seen.append(error)
                continue
            with descriptor:
                seen.append(descriptor.read())

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions[1:]:
        kubelet.project_files(tmp_path, {"bot-token": version})
    done.set()
    reader.join()

    known = set(versions)
    # An open that resolved `..data` just before the swap may find the old directory gone: so it is
    # with the real kubelet. What was opened is whole.
    assert any(isinstance(item, bytes) for item in seen)
    assert all(item in known for item in seen if isinstance(item, bytes))
    assert all(isinstance(item, FileNotFoundError) for item in seen if isinstance(item, OSError))


def test_removed_volume_is_gone(tmp_path: Path) -> None:
    kubelet.project_files(tmp_path / "v", {"bot-token": b"one"})
    kubelet.remove_volume(tmp_path / "v")
    kubelet.remove_volume(tmp_path / "v")

    assert not (tmp_path / "v").exists()
