"""The command line: one module a command, imported only when it is run."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.cli.commands import Context, Kubeconfig, add_commands
from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError
from reconciler.cli.stdout import guard_stdout
from reconciler.errors import SettingsError


def make_app(text: str, *, completion: bool = True) -> typer.Typer:
    """Return an empty command line with our manners: plain help, plain tracebacks."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = make_app("Keeps the short-lived token of every runner pod alive in its Kubernetes Secret.")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reconciler {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Hold the options that every command shares."""


@app.command()
def run() -> None:
    """Run the controller: in-cluster, or with KUBECONFIG. Settings come from the environment."""
    from reconciler.settings import load_settings
    from reconciler.telemetry.stderr_writer import redirect_output

    outlet = redirect_output()
    settings = load_settings()

    from reconciler.app.main import run

    run(settings, outlet)


@app.command()
def check(
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="text|json", help="How to print it.")
    ] = "text",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Ask whether rights, issuer, platform and clock are as `run` needs them; exit 3 if not."""
    from reconciler.cli.check import run_check

    raise typer.Exit(run_check(output=output, kubeconfig=kubeconfig, context=context))


add_commands(app)


_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def _add_lab_commands() -> None:
    """Add the lab's commands where it is installed, or what says how to get it."""
    if find_spec("reconciler.lab"):
        import_module("reconciler.lab.cli.commands").add_commands(app)
        return
    for name in ("demo", "lab", "simulate"):
        app.command(name, hidden=True, context_settings=_ANY_ARGUMENTS)(_say_how_to_get_the_lab)


def _say_how_to_get_the_lab() -> None:
    raise SettingsError(
        "demo, lab and simulate are not part of this installation; they run in a checkout of the"
        " repository, after `make setup`"
    )


_add_lab_commands()


def main() -> None:
    """Run the command line."""
    guarded(lambda: app(prog_name="reconciler"))


def guarded(command: Callable[[], object]) -> None:
    """Run a command line; what only a human can mend ends it with readable lines and its code."""
    guard_stdout()
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, since at the interpreter's end a failure is a traceback
    except (SettingsError, CommandError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"reconciler: {line}\n")
        sys.exit(error.code if isinstance(error, CommandError) else EXIT_SETTINGS)
