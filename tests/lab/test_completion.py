"""`reconciler completion` in the real shells: what stands in the line after Tab."""

import shutil

import pytest

from reconciler.lab.fault_catalogue import DEMO_FAULTS
from tests.cluster.conftest import unavailable
from tests.commands import command, terminal

SHELLS = {"bash": ("--noprofile", "--norc", "-i"), "zsh": ("-f", "-i")}
ZSH_SETUP = "autoload -Uz compinit; compinit -u -D; "


def require_shell(name: str) -> str:
    """Return the shell's path, or skip the test (fail it where real programs are required)."""
    return shutil.which(name) or unavailable(f"no {name}: apt-get install {name}")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("reconciler expl", "reconciler explain "),
        ("reconciler demo --chaos freeze", "reconciler demo --chaos freeze-leader "),
        ("reconciler completion fi", "reconciler completion fish "),
        ("reconciler status -o ya", "reconciler status -o yaml "),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
async def test_tab_completes_commands_and_values(shell: str, typed: str, completed: str) -> None:
    program = require_shell(shell)
    async with terminal(*SHELLS[shell], program=program, PS1="$ ") as shown:
        setup = ZSH_SETUP if shell == "zsh" else ""
        shown.type(f"{setup}source <(reconciler completion {shell}); echo re''ady\n")
        await shown.wait_for("the script is read", lambda text: "ready" in text)
        shown.forget()
        shown.type(f"{typed}\t")
        await shown.wait_for(completed, lambda text: completed in text)


async def test_fish_completes_with_the_sentence_of_each_fault() -> None:
    program = require_shell("fish")
    script = "reconciler completion fish | source; complete --do-complete"
    faults = await command("-c", f"{script} 'reconciler demo --chaos '", program=program)
    offered = dict(line.split("\t") for line in faults.lines)
    assert offered == {"list": offered["list"]} | {str(each): each.help for each in DEMO_FAULTS}
    commands = await command("-c", f"{script} 'reconciler expl'", program=program)
    assert [line.split("\t")[0] for line in commands.lines] == ["explain"]


async def test_another_shell_is_refused_with_those_that_are_known() -> None:
    ended = await command("completion", "tcsh")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == "reconciler: completion tcsh: the shells are bash, zsh and fish\n"
