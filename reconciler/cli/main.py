"""The command line. Each command has a module, which is imported when the command runs."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reconciler import __version__
from reconciler.cli.commands import Context, Kubeconfig, add_commands, short_value
from reconciler.cli.exit_codes import (
    EXIT_DEFECT,
    EXIT_OUTPUT,
    EXIT_PIPE,
    EXIT_SETTINGS,
    CommandError,
)
from reconciler.errors import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
    from reconciler.settings import load_settings
    from reconciler.telemetry.stderr_writer import redirect_output

    outlet = redirect_output()
    settings = load_settings()

    from reconciler.app.main import run

    run(settings, outlet)


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


def guarded(command: Callable[[], object]) -> None:
    """Run a command line; print errors of the input or the cluster without a traceback.

    Any other error is a defect. Python would end with 1, which says that a token has expired.
    """
    _guard_output()
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # a failure at the interpreter's exit would print a traceback
    except (SettingsError, CommandError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"reconciler: {line}\n")
        sys.exit(error.code if isinstance(error, CommandError) else EXIT_SETTINGS)
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_DEFECT)


def _guard_output() -> None:
    # A tenant's text may not fit the encoding: Python escapes it on standard error alone.
    sys.stdout = _text_of(_StandardFile(sys.stdout.fileno()), sys.stdout.encoding)
    notes = _StandardFile(sys.stderr.fileno(), is_result=False)
    sys.stderr = _text_of(notes, sys.stderr.encoding, line_buffering=True)


def _text_of(
    raw: "_StandardFile", encoding: str, *, line_buffering: bool = False
) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )


class _StandardFile(io.RawIOBase):
    """Standard output or error; what is still buffered after a failed write is dropped.

    A failed write of a result ends the command with `EXIT_PIPE` or `EXIT_OUTPUT`. click and rich
    exit with 1 where the reader of a pipe has ended, which here says that a pod has an expired
    token; so does Python where a note cannot be written. Notes have no other place, and the result
    does not depend on them.
    """

    def __init__(self, fd: int, *, is_result: bool = True) -> None:
        self._fd = fd
        self._is_result = is_result
        self._has_failed = False

    def write(self, data: "Buffer", /) -> int:
        """Write; raises `SystemExit` with the code of the failure."""
        if self._has_failed:
            return memoryview(data).nbytes
        try:
            return os.write(self._fd, data)
        except OSError as error:
            self._has_failed = True
            if self._is_result:
                self._end(error)
            return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def _end(self, error: OSError) -> NoReturn:
        if error.errno == errno.EPIPE:
            sys.exit(EXIT_PIPE)
        sys.stderr.write(f"reconciler: cannot write the output: {error.strerror}\n")
        sys.exit(EXIT_OUTPUT)
