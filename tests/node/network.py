"""The node's network: a bridge for pods, and the API server's service address, in our namespace."""

import ipaddress
import json
import subprocess
from pathlib import Path

BRIDGE = "node0"
SUBNET = "10.77.0.0/24"
NODE = "10.77.0.1"
"""The bridge's address: the pods' gateway, and the address of the node."""

SERVICE = "10.0.0.1"
"""First address of the control plane's service range: that of the Service `kubernetes`. There is no
kube-proxy: the node has this address, too."""

ELSEWHERE = ipaddress.ip_network("10.77.1.0/24").hosts()
"""Addresses outside of the pods' network, for servers outside of the cluster."""

ISSUER_PORT, PLATFORM_PORT = 6443, 8000
"""Ports of these servers on each address: ports that the product's NetworkPolicy allows."""

PLUGINS = Path("/usr/lib/cni")


def is_ours() -> bool:
    """Return whether this network has only loopback: that of the tests, not the machine's."""
    shown = subprocess.run(
        ["ip", "-json", "link"], capture_output=True, text=True, timeout=10, check=True
    )
    return {link["ifname"] for link in json.loads(shown.stdout)} <= {"lo", BRIDGE}


def add_address() -> str:
    """Give the node one more outside address; return it."""
    address = str(next(ELSEWHERE))
    _run(f"ip address add {address}/32 dev lo")
    return address


def set_up(folder: Path) -> Path:
    """Create the bridge and its CNI configuration; return the configuration's folder."""
    for command in (
        f"ip link add {BRIDGE} type bridge",
        f"ip address add {NODE}/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
        f"ip address add {SERVICE}/32 dev lo",
    ):
        _run(command)
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": SUBNET, "gateway": NODE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(folder / "leases"),
        },
    }
    configuration = folder / "cni"
    configuration.mkdir()
    (configuration / "node.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "node", "plugins": [bridge]})
    )
    return configuration


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, timeout=10, capture_output=True)
