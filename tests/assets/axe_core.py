"""What checks the status page's accessibility in a browser."""

from functools import partial
from pathlib import Path

from tests.assets.issuers import Package, npm_packages

AXE_CORE = "4.10.2"

AXE_PACKAGE = Package(
    "axe-core",
    AXE_CORE,
    "npm",
    partial(npm_packages, Path(__file__).parent / "axe"),
    "node_modules/axe-core/axe.min.js",
)
