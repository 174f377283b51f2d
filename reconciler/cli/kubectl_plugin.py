"""The operator's commands as a kubectl plugin: `kubectl token_reconciler status`.

kubectl runs the program `kubectl-token_reconciler`, and asks `kubectl_complete-token_reconciler`
for completions. Source: kubectl's plugin handler; an underscore in the file name is a dash or an
underscore in the command.
"""

import os
import shlex
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO

import typer

from reconciler.cli.commands import add_commands
from reconciler.cli.guard import guarded
from reconciler.cli.main import make_app

PROGRAM = "kubectl token_reconciler"

_COMPLETE = "_KUBECTL_TOKEN_RECONCILER_COMPLETE"


def main() -> None:
    """Run the plugin's command line."""
    app = _app(completion=False)
    guarded(lambda: app(prog_name=PROGRAM))


def complete() -> None:
    """Print kubectl's completions: a candidate a line, then the directive for the shell.

    Source: cobra's completion protocol; 4 is "do not complete file names".
    """
    typed = sys.argv[1:]
    words = ["token_reconciler", *typed] if typed else ["token_reconciler", ""]
    os.environ |= {
        _COMPLETE: "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    app = _app(completion=True)
    found = StringIO()
    with redirect_stdout(found), suppress(SystemExit):  # raised at the end of every command line
        app(prog_name=PROGRAM, complete_var=_COMPLETE)
    words = [word for word in found.getvalue().splitlines() if word]
    sys.stdout.write("\n".join([*words, ":4\n"]))


def _app(*, completion: bool) -> typer.Typer:
    """Make the command line; kubectl has its own completion, so there is none to install."""
    app = make_app("Inspect and control the tokens of runner pods.", completion=completion)
    add_commands(app)
    return app
