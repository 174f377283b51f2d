"""When a change of a file counts: not during a write; at once where nothing is lost."""

import os
from pathlib import Path

import pytest

from reconciler.net.file_rotation import LOOK_S, SETTLED_S, FileRotation
from tests.support import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def write(file: Path, text: str, clock: ManualClock, *, ago_s: float = 0.0) -> None:
    file.write_text(text)
    os.utime(file, (float(clock.wall() - ago_s),) * 2)


def test_a_file_that_was_left_alone_counts_at_the_next_look(
    tmp_path: Path, clock: ManualClock
) -> None:
    file = tmp_path / "ca.crt"
    write(file, "one", clock)
    rotation = FileRotation(lambda: [file], clock)
    first = rotation.version()
    write(file, "two", clock, ago_s=SETTLED_S)
    assert rotation.version() == first
    clock.advance(LOOK_S)
    assert rotation.version() != first


def test_a_file_that_is_being_written_counts_when_two_looks_agree(
    tmp_path: Path, clock: ManualClock
) -> None:
    file = tmp_path / "ca.crt"
    write(file, "one", clock)
    rotation = FileRotation(lambda: [file], clock)
    first = rotation.version()
    for text in ("t", "tw", "two"):
        clock.advance(LOOK_S)
        write(file, text, clock)
        assert rotation.version() == first
    write(file, "two", clock, ago_s=-3600.0)  # a clock that was stepped back
    clock.advance(SETTLED_S)
    assert rotation.version() != first


def test_a_change_that_was_taken_back_is_none(tmp_path: Path, clock: ManualClock) -> None:
    file = tmp_path / "ca.crt"
    write(file, "one", clock)
    rotation = FileRotation(lambda: [file], clock)
    first = rotation.version()
    for text in ("two", "one", "two"):
        write(file, text, clock)
        clock.advance(LOOK_S)
        os.utime(file, (float(clock.wall()),) * 2)
        assert rotation.version() == first


def test_what_serves_no_request_any_more_is_given_up_at_once(
    tmp_path: Path, clock: ManualClock
) -> None:
    file = tmp_path / "ca.crt"
    write(file, "one", clock)
    rotation = FileRotation(lambda: [file], clock)
    first = rotation.version()
    write(file, "two", clock)
    assert rotation.version(fresh=True) != first


def test_missing_empty_and_there_are_three_versions_and_a_folder_has_its_own(
    tmp_path: Path, clock: ManualClock
) -> None:
    file, folder = tmp_path / "ca.crt", tmp_path / "certs"
    folder.mkdir()
    os.utime(folder, (0, 0))
    rotation = FileRotation(lambda: [file, folder], clock)
    found = [rotation.version(fresh=True)]
    file.touch()
    found.append(rotation.version(fresh=True))
    file.write_text("one")
    found.append(rotation.version(fresh=True))
    (folder / "one.pem").touch()
    found.append(rotation.version(fresh=True))
    assert len(set(found)) == 4
