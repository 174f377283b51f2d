"""Each example of docs/runners.md, by its language's own toolchain, calls the lab's gRPC server.

The file is replaced as a kubelet does it: a new directory, and a link that is renamed.
"""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from reconciler.lab.kubelet.kubelet import project_files
from reconciler.lab.kubelet.pods import FILE_NAME
from reconciler.lab.runners.server import SessionServer
from reconciler.naming import SessionKey
from tests.cluster.conftest import unavailable
from tests.runners.programs import EXAMPLES, Example, ExampleProgram, started
from tests.support import ManualClock
from tests.unit.lab_fleet.signing import Issuer

DOCUMENT = Path(__file__).parents[2] / "docs" / "runners.md"
OK = int(grpc.StatusCode.OK.value[0])
UNAUTHENTICATED = int(grpc.StatusCode.UNAUTHENTICATED.value[0])
LIFE_S = 900.0
MOST_LINES = 20
STRACE = shutil.which("strace")

each_example = pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: example.fence, scope="module"
)


class World:
    """A server, the mounted Secret of a runner, and what the server answered."""

    def __init__(self, volume: Path) -> None:
        self.clock = ManualClock()
        self.issuer = Issuer()
        self.volume = volume
        self.accepted: list[bool] = []
        self.on_refused: Callable[[], None] = lambda: None
        self.server = SessionServer(self.issuer.verify, self.clock, self._called)

    @property
    def file(self) -> Path:
        return self.volume / FILE_NAME

    def refresh(self) -> None:
        """Project a new token."""
        token = self.issuer.token(self.clock.wall() + LIFE_S)
        project_files(self.volume, {FILE_NAME: token.encode()})

    def expire(self) -> None:
        self.clock.advance(LIFE_S)

    def _called(self, _session: SessionKey, accepted: bool) -> None:
        self.accepted.append(accepted)
        if not accepted:
            self.on_refused()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "volume")


@pytest.fixture(scope="module")
def command(example: Example, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return example.command(tmp_path_factory.mktemp("program"))


@pytest.fixture
async def program(world: World, command: list[str]) -> AsyncIterator[ExampleProgram]:
    world.refresh()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(world.server)
        running = started(command, world.server.target, world.file)
        yield await stack.enter_async_context(running)


@each_example
async def test_a_projected_token_is_used_by_the_next_call_and_no_call_is_refused(
    world: World, program: ExampleProgram
) -> None:
    assert await program.call() == OK
    world.expire()
    world.refresh()
    assert await program.call() == OK
    assert world.accepted == [True, True]


@each_example
async def test_a_refused_call_is_repeated_with_the_token_that_came_meanwhile(
    world: World, program: ExampleProgram
) -> None:
    assert await program.call() == OK
    world.expire()
    world.on_refused = world.refresh
    assert await program.call() == OK
    assert world.accepted == [True, False, True]


@each_example
async def test_a_token_that_was_refused_is_not_sent_again_in_the_same_call(
    world: World, program: ExampleProgram
) -> None:
    world.expire()
    assert await program.call() == UNAUTHENTICATED
    assert world.accepted == [False]


@each_example
async def test_a_second_refusal_ends_the_call(world: World, program: ExampleProgram) -> None:
    def replace_by_an_expired_token() -> None:
        world.refresh()
        world.expire()

    world.expire()
    world.on_refused = replace_by_an_expired_token
    assert await program.call() == UNAUTHENTICATED
    assert world.accepted == [False, False]


@each_example
async def test_a_file_that_is_missing_for_one_open_is_opened_again(
    world: World, command: list[str]
) -> None:
    """kubernetes#92851: the kubelet removes the former directory while a reader resolves it."""
    if STRACE is None:
        unavailable("no strace: install Debian's package strace")
    world.refresh()
    fault = "openat:error=ENOENT:when=1"
    traced = [
        STRACE,
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        str(world.file),
        "-e",
        f"inject={fault}",
    ]
    async with (
        world.server,
        started([*traced, *command], world.server.target, world.file) as program,
    ):
        assert await program.call() == OK
    assert world.accepted == [True]


@each_example
def test_the_document_shows_the_example_that_is_tested(example: Example) -> None:
    text = DOCUMENT.read_text()
    blocks = re.findall(rf"^```{example.fence}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert example.source.read_text() in blocks


@each_example
def test_an_example_is_short(example: Example) -> None:
    """Blank lines, imports and the path of the file are not counted."""
    text = re.sub(r"^import \(.*?^\)$", "", example.source.read_text(), flags=re.M | re.S)
    other = re.compile(r"(import|from|package|TOKEN_FILE|(export )?const)\b")
    assert 5 < sum(bool(line) and not other.match(line) for line in text.splitlines()) <= MOST_LINES
