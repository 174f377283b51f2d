"""The command line. Each command has a module, which is imported when the command runs."""

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.cli.commands import Context, Kubeconfig, add_commands, short_value
from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError
from reconciler.cli.guard import guarded
from reconciler.errors import SettingsError


def make_app(text: str, *, completion: bool = True) -> typer.Typer:
    """Return a command line without commands, with plain help and plain tracebacks."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = make_app("Refreshes each runner pod's short-lived token in its Kubernetes Secret.")


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
    """Run the controller, in a cluster or with KUBECONFIG. Environment variables configure it."""
    from reconciler.cli.run import run

    run()


@app.command()
def check(
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="text|json", help="Output format.", callback=short_value
        ),
    ] = "text",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Check the rights, issuer, platform and clock.

    Sends the requests that `run` needs. Exits with 3 if one fails.
    """
    from reconciler.cli.check import run_check

    raise typer.Exit(run_check(output=output, kubeconfig=kubeconfig, context=context))


@app.command()
def settings(
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="table|json", help="Output format.", callback=short_value
        ),
    ] = "table",
) -> None:
    """Print the effective settings and where each comes from.

    Secrets are redacted. Exits with 2 if a setting is wrong.
    """
    from reconciler.cli.settings import run_settings

    raise typer.Exit(run_settings(output=output))


SHELLS = ("bash", "zsh", "fish")


@app.command()
def completion(
    shell: Annotated[
        str, typer.Argument(metavar="|".join(SHELLS), autocompletion=lambda: [*SHELLS])
    ],
) -> None:
    """Print the completion script of a shell, as in: source <(reconciler completion bash)."""
    if shell not in SHELLS:
        raise CommandError(f"completion {shell}: the shells are bash, zsh and fish", EXIT_SETTINGS)
    # typer.completion has the name from a private module, without the form of a re-export.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    variable = "_RECONCILER_COMPLETE"
    typer.echo(get_completion_script(prog_name="reconciler", complete_var=variable, shell=shell))


add_commands(app)


_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def _add_lab_commands() -> None:
    """Add the lab's commands where it is installed, else hidden ones that say how to get it."""
    if find_spec("reconciler.lab"):
        import_module("reconciler.lab.cli.commands").add_commands(app)
        return
    for name in ("demo", "lab", "simulate"):
        app.command(name, hidden=True, context_settings=_ANY_ARGUMENTS)(_say_how_to_get_the_lab)


def _say_how_to_get_the_lab() -> None:
    raise SettingsError(
        "demo, lab and simulate are not part of this installation; run them in a checkout of the"
        " repository, after `make setup`"
    )


_add_lab_commands()


def main() -> None:
    """Run the command line."""
    guarded(lambda: app(prog_name="reconciler"))
