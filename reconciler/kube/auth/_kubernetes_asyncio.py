"""kubernetes-asyncio's credential loaders without the 767 models that its package imports.

The loaders need two classes of the client. `import kubernetes_asyncio` imports every API and model
as well, which doubles the time of this program's start and costs 60 MiB. While the loaders are
imported, packages without their `__init__` replace the packages that would import everything. They
are removed afterwards: a later import of kubernetes_asyncio gets the real package. So does urllib3,
which `Configuration` uses in one method that nothing here calls: a thirtieth of the start.
`load` may run beside other threads, and replaces no other package.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_ROOT = "kubernetes_asyncio"


def load(module: str) -> Any:
    """Return a separate copy of a module of the `config` package, as `kube_config`.

    Modules of kubernetes_asyncio that were imported before are restored.
    """
    with _bare_packages() as (root, client):
        vars(client).update(Configuration=Configuration, ApiClient=None)
        vars(root).update(client=client)
        return importlib.import_module(f"{_ROOT}.config.{module}")


def _import_configuration() -> Any:
    is_absent = "urllib3" not in sys.modules
    sys.modules.setdefault("urllib3", ModuleType("urllib3"))
    try:
        with _bare_packages():
            return importlib.import_module(f"{_ROOT}.client.configuration").Configuration
    finally:
        if is_absent:
            del sys.modules["urllib3"]


@contextmanager
def _bare_packages() -> Iterator[tuple[ModuleType, ModuleType]]:
    """Have the root and `client`, which are returned, and `config` without their `__init__`."""
    before = _take_out()
    try:
        root, client = _bare_package(_ROOT), _bare_package(f"{_ROOT}.client")
        _bare_package(f"{_ROOT}.config")
        yield root, client
    finally:
        _take_out()
        sys.modules.update(before)


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == _ROOT]
    return {name: sys.modules.pop(name) for name in names}


def _bare_package(name: str) -> ModuleType:
    """Put a package with the real one's path, but without its `__init__`, into sys.modules."""
    parent, _, child = name.rpartition(".")
    if parent:
        paths = [f"{path}/{child}" for path in sys.modules[parent].__path__]
    else:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"{name} is not installed")
        paths = list(spec.submodule_search_locations)
    package = ModuleType(name)
    package.__path__ = paths
    sys.modules[name] = package
    return package


Configuration = _import_configuration()
"""The class whose fields the loaders set."""
