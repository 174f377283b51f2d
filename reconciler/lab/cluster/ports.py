"""Free ports of this machine."""

import socket


def free_port() -> int:
    """Return a loopback port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
