"""The control plane of tests/cluster/, one for the whole test session."""

from tests.cluster.conftest import control_plane

__all__ = ["control_plane"]
