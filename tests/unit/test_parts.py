"""Secret values from the environment, or from files that another process changes."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from reconciler.clock import NEVER, EpochTime
from reconciler.errors import SettingsError
from reconciler.factories import SecretSetting
from reconciler.lab.kubelet.kubelet import project_files

OLD, NEW = "obviously-fake-1", "obviously-fake-2"


def test_a_file_that_the_kubelet_swaps_is_read_anew(tmp_path: Path) -> None:
    project_files(tmp_path, {"token": f"{OLD}\n".encode()})
    secret = SecretSetting(None, tmp_path / "token")
    assert secret.read() == OLD
    project_files(tmp_path, {"token": NEW.encode()})
    assert secret.read() == NEW
    assert secret.written_s() == EpochTime((tmp_path / "token").stat().st_mtime)


def test_a_file_that_is_missing_for_one_open_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kubernetes#92851: the kubelet removes the former directory while a reader resolves it."""
    project_files(tmp_path, {"token": OLD.encode()})
    opens: list[Path] = []

    def read_text(file: Path) -> str:
        opens.append(file)
        if len(opens) == 1:
            raise FileNotFoundError
        return OLD

    monkeypatch.setattr(Path, "read_text", read_text)
    assert SecretSetting(None, tmp_path / "token").read() == OLD


def test_a_value_of_the_environment_is_of_this_process_alone() -> None:
    secret = SecretSetting(SecretStr(OLD), None)
    assert (secret.read(), secret.written_s()) == (OLD, NEVER)


def test_what_editors_and_shells_add_is_no_part_of_a_value(tmp_path: Path) -> None:
    for added in (f"{OLD}\n", f"\ufeff{OLD}\r\n", f" \ufeff {OLD}\t"):
        (tmp_path / "token").write_text(added)
        assert SecretSetting(None, tmp_path / "token").read() == OLD
        assert SecretSetting(SecretStr(added), None).read() == OLD


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b" \n", "is empty"), (b"\xff\xfe\x00secret", "holds no text")],
    ids=["missing", "empty", "binary"],
)
def test_a_file_that_holds_no_value_is_named_and_not_shown(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as caught:
        SecretSetting(None, path).read()
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value).removeprefix(str(path))


def test_a_file_that_is_not_there_was_written_at_no_known_time(tmp_path: Path) -> None:
    assert SecretSetting(None, tmp_path / "token").written_s() == NEVER
