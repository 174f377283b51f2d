"""`python tests/bench/start_steps.py OUT run`: the product, and when each step of its start was.

With the answer to the first write of a token it writes OUT: a JSON list of steps, each with its
name, the time (epoch seconds), and the CPU seconds of the process so far. It is no module of a
package, so that nothing of the tests is imported, and PYTHONPATH may name another tree.
"""

import functools
import importlib.abc
import inspect
import json
import operator
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

Name = str | Callable[..., str]
"""A step's name, or a function that makes it from a call's arguments."""

BEGINS: dict[str, dict[str, Name]] = {
    "reconciler.cli.run": {"main": "the settings' modules are imported"},
    "reconciler.app.main": {
        "run": "all modules are imported",
        "run_until_signal": "the event loop runs",
        "serve_health": "the elector has its connection",
    },
    "reconciler.app.memory": {"freeze": "garbage is collected"},
    "reconciler.controller.controller": {"Controller.run": "the probes are served"},
    "reconciler.kube.requests": {"RequestSender.read": lambda _, asked, **__: f"> {asked.what}"},
    "reconciler.tokens.oidc": {"TokenEndpoint.request_token": "> POST, the issuer"},
    "reconciler.platform.client": {"PlatformClient.list_projects": "> GET projects, the platform"},
}
ENDS: dict[str, dict[str, Name]] = {
    "reconciler.cli.run": {"load_settings": "the settings are read"},
    "reconciler.app.main": {
        "_open_tokens": "the issuer's client is made",
        "_open_kube": "the API server's clients are made",
        "compose": "the controller is composed",
    },
    "reconciler.app.memory": {"freeze": "garbage is collected, ended"},
    "reconciler.kube.requests": {"RequestSender.read": lambda _, asked, **__: f"< {asked.what}"},
    "reconciler.tokens.oidc": {"TokenEndpoint.request_token": "< POST, the issuer"},
    "reconciler.platform.client": {"PlatformClient.list_projects": "< GET projects, the platform"},
}
LAST = "< PATCH /api/v1/namespaces/"


class Steps:
    """Records the first occurrence of each step until the last one."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._found: dict[str, tuple[float, float]] = {}
        self._done = False

    def mark(self, name: str) -> None:
        if self._done or name in self._found:
            return
        self._found[name] = time.time(), time.process_time()
        if name.startswith(LAST):
            self._done = True
            part = self._out.with_suffix(".part")  # the reader waits for the file
            part.write_text(json.dumps([(name, *at) for name, at in self._found.items()]))
            part.replace(self._out)

    def marking(self, function: Callable[..., Any], begin: Name, end: Name) -> Callable[..., Any]:
        """Return a function that marks its begin and its end, where they have names."""

        def mark(name: Name, args: Any, named: Any) -> None:
            if found := name(*args, **named) if callable(name) else name:
                self.mark(found)

        @functools.wraps(function)
        async def waits(*args: Any, **named: Any) -> Any:
            mark(begin, args, named)
            try:
                return await function(*args, **named)
            finally:
                mark(end, args, named)

        @functools.wraps(function)
        def calls(*args: Any, **named: Any) -> Any:
            mark(begin, args, named)
            try:
                return function(*args, **named)
            finally:
                mark(end, args, named)

        return waits if inspect.iscoroutinefunction(function) else calls


class Hook(importlib.abc.MetaPathFinder):
    """Replaces the named functions of a module as soon as it is imported."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in BEGINS and name not in ENDS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            execute(module)
            self._replace(module, name)

        spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec

    def _replace(self, module: ModuleType, name: str) -> None:
        begins, ends = BEGINS.get(name, {}), ENDS.get(name, {})
        for path in begins | ends:
            owner, _, attribute = path.rpartition(".")
            place = operator.attrgetter(owner)(module) if owner else module
            function = self._steps.marking(
                getattr(place, attribute), begins.get(path, ""), ends.get(path, "")
            )
            setattr(place, attribute, function)


def main() -> None:
    del sys.path[0]
    steps = Steps(Path(sys.argv[1]))
    steps.mark("the interpreter runs")
    sys.meta_path.insert(0, Hook(steps))
    sys.argv = ["reconciler", *sys.argv[2:]]
    from reconciler.entry import main as product

    product()


if __name__ == "__main__":
    main()
