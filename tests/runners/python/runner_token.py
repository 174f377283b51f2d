from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

TOKEN_FILE = Path("/var/run/secrets/ambient/bot-token")


def bearer(file: Path = TOKEN_FILE) -> tuple[tuple[str, str], ...]:
    try:
        token = file.read_text("ascii")
    except FileNotFoundError:  # opened while the kubelet replaced the directory
        token = file.read_text("ascii")
    return (("authorization", f"Bearer {token.strip()}"),)


def call(method: Callable[..., Any], request: Any, file: Path = TOKEN_FILE) -> Any:
    token = bearer(file)
    try:
        return method(request, metadata=token, timeout=5.0)
    except grpc.RpcError as error:
        newest = bearer(file)
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED or newest == token:
            raise
        return method(request, metadata=newest, timeout=5.0)
