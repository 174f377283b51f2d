"""What the example in TypeScript of docs/runners.md is compiled and run with."""

from functools import partial
from pathlib import Path

from tests.assets.issuers import Package, npm_packages

GRPC_JS = "1.14.3"

TYPESCRIPT_MODULE = Path(__file__).parents[1] / "runners" / "typescript"
TYPESCRIPT_PACKAGE = Package(
    "runner-typescript",
    GRPC_JS,
    "npm",
    partial(npm_packages, TYPESCRIPT_MODULE),
    "node_modules/typescript/bin/tsc",
)
