"""The entry point of the command line, before any import that takes time.

Process 1 of a container gets no signal without a handler: a SIGTERM during the imports would be
lost, and the kubelet would wait for the whole grace period.
"""

import gc
import importlib
import os
import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] in (["run"], ["demo"]):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))  # nothing is started yet
    if sys.argv[1:2] == ["run"]:
        gc.disable()  # until `app.main.run`: a tenth of the imports' CPU, and they leave no garbage
    open_standard_files()
    _import_structlog_alone()
    if sys.argv[1:2] == ["run"]:
        _import_aiohttp_without_cas()
    # typer, and the options of all commands, would be a twentieth of the start's CPU.
    module = "reconciler.cli.run" if sys.argv[1:] == ["run"] else "reconciler.cli.main"
    importlib.import_module(module).main()


def _import_structlog_alone() -> None:
    """Import structlog as if rich were not installed.

    It would import rich for tracebacks that the log never shows: a twelfth of the start's CPU.
    """
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails
    importlib.import_module("structlog")
    del sys.modules["rich"]


def _import_aiohttp_without_cas() -> None:
    """Import aiohttp as if the system had no CAs, which its two default contexts would load.

    A tenth of the start's CPU, for contexts that no connection here uses: `net.client_pool` names
    its own. One that used them would trust no server.
    """
    tls = importlib.import_module("ssl").SSLContext
    tls.set_default_verify_paths = lambda _: None
    importlib.import_module("aiohttp")
    del tls.set_default_verify_paths  # that of its base class again


def open_standard_files() -> None:
    """Open /dev/null for each standard file that was closed before the start.

    Otherwise the first connection would get its descriptor, and printed text would go to the peer.
    """
    for number, mode in enumerate(("r", "w", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the kernel returns the lowest free number
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
