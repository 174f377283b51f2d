"""The loaders come without the client's models, and leave the real package as it was."""

import subprocess
import sys

import pytest

LOADED = "import reconciler.kube.auth._kubernetes_asyncio as ours, sys; "
NONE_LEFT = "assert not [m for m in sys.modules if m.startswith('kubernetes_asyncio')]; "
USABLE = (
    "c = ours.Configuration(); c.host = 'https://x'; "
    "config = ours.load('kube_config'); assert callable(config.load_kube_config); "
    "assert config.Configuration is ours.Configuration; "
)
REAL = (
    "from kubernetes_asyncio.client import V1Pod, ApiClient; assert V1Pod().to_dict() is not None; "
)
KEPT = (
    "import kubernetes_asyncio.config as later; "
    "assert kubernetes_asyncio.client.V1Pod is V1Pod; "
    "assert later.kube_config.ApiClient is ApiClient; assert later.kube_config is not config; "
)

CASES = {
    "the loaders work without the package": LOADED + NONE_LEFT + USABLE + NONE_LEFT,
    "the real package can be imported afterwards": LOADED + REAL + USABLE,
    "a package imported before stays the real one": (
        "import kubernetes_asyncio.client; " + REAL + LOADED + USABLE + KEPT
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loaders_and_the_real_package_live_side_by_side(case: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CASES[case]],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
