"""The real Kubernetes programs that the cluster tests run: pinned, found, built when absent.

`python -m tests.assets` builds what is missing. Standard library only: it must work before the
project's own environment exists.
"""

from tests.assets.locate import find

__all__ = ["find"]
