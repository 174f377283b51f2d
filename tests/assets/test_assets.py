"""Finding and building, with a fake `go` that writes a program in an instant."""

from pathlib import Path

import pytest

from tests.assets import build, find, locate
from tests.assets.programs import ETCD, PROGRAMS, Program

ETCD_PROGRAM = PROGRAMS[0]

FAKE_GO = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
printf '#!/bin/sh\\necho etcd Version: %s\\n' > "$2"
/bin/chmod +x "$2"
echo something about the build >&2
exit {code}
"""


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; the cache is empty and KUBEBUILDER_ASSETS unset."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("RECONCILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return folder


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def says(path: Path, answer: str) -> Path:
    return script(path, f"#!/bin/sh\necho {answer}\n")


def go(bin_dir: Path, *, version: str = ETCD.removeprefix("v"), code: int = 0) -> None:
    script(bin_dir / "go", FAKE_GO.format(code=code).replace("%s", version))


def build_etcd() -> list[str]:
    """Build etcd under the lock; return what was said."""
    said: list[str] = []
    with build.sole_builder(said.append):
        build.build(ETCD_PROGRAM, said.append)
    return said


def cached_files() -> list[str]:
    """Names of all files in the cache but the lock."""
    return [path.name for path in locate.cache_dir().rglob("*") if path.name != "lock"]


def test_what_was_built_is_found(bin_dir: Path) -> None:
    go(bin_dir)
    assert find() == {}
    said = build_etcd()
    assert said[-1].startswith(f"etcd {ETCD}: built in 0 s")
    assert find() == {"etcd": locate.cached(ETCD_PROGRAM)}


def test_the_named_folder_comes_first_with_any_version(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(locate.cached(ETCD_PROGRAM), f"etcd Version: {ETCD}")
    named = says(tmp_path / "named" / "etcd", "etcd Version: 3.5.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(named.parent))
    assert find() == {"etcd": named}


def test_a_binary_that_does_not_run_is_passed_over(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = says(locate.cached(ETCD_PROGRAM), f"etcd Version: {ETCD}")
    broken = script(tmp_path / "named" / "etcd", "#!/bin/sh\nexit 7\n")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(broken.parent))
    found, rejected = locate.search(ETCD_PROGRAM)
    assert found is not None
    assert found.path == cached
    assert rejected == [locate.Rejected(broken, "--version exits 7")]


def test_a_version_may_be_said_on_standard_error(bin_dir: Path) -> None:
    script(locate.cached(ETCD_PROGRAM), f"#!/bin/sh\necho etcd Version: {ETCD} >&2\n")
    assert find() == {"etcd": locate.cached(ETCD_PROGRAM)}


def test_the_cache_holds_the_pinned_version_only(bin_dir: Path) -> None:
    says(locate.cached(ETCD_PROGRAM), "etcd Version: 3.5.0")
    assert find() == {}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_path_is_good_enough_for_kubectl_alone(bin_dir: Path, program: Program) -> None:
    path = says(bin_dir / program.name, f"Version: {program.version}")
    assert find() == ({"kubectl": path} if program.name == "kubectl" else {})


def test_without_go_one_line_says_what_to_install(bin_dir: Path) -> None:
    with pytest.raises(build.BuildError, match=r"^etcd v.* no `go` on PATH: install Go .*$"):
        build_etcd()


@pytest.mark.parametrize(
    ("version", "code", "message"),
    [
        pytest.param("3.7.3", 2, r"failed \(exit 2\):\nsomething about the build$", id="go-fails"),
        pytest.param("0.0.0", 0, r"is 'etcd Version: 0.0.0', not v3", id="wrong-version"),
    ],
)
def test_a_failed_build_leaves_nothing(
    bin_dir: Path, version: str, code: int, message: str
) -> None:
    go(bin_dir, version=version, code=code)
    with pytest.raises(build.BuildError, match=message):
        build_etcd()
    assert cached_files() == []


def test_what_a_killed_build_left_is_removed_by_the_next(bin_dir: Path) -> None:
    script(locate.cache_dir() / "unfinished-abc" / "etcd", "half a binary")
    go(bin_dir)
    build_etcd()
    assert cached_files() == [locate.cached(ETCD_PROGRAM).parent.name, "etcd"]
