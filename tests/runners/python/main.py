"""`main.py TARGET FILE`: one call for each line of standard input; prints its status code."""

import sys
from pathlib import Path

import grpc

from tests.runners.python.runner_token import call


def main() -> None:
    target, file = sys.argv[1:]
    with grpc.insecure_channel(target) as channel:
        push = channel.unary_unary("/ambient.v1.SessionService/PushSessionMessage")
        for _ in sys.stdin:
            try:
                call(push, b"", Path(file))
                print(grpc.StatusCode.OK.value[0], flush=True)
            except grpc.RpcError as error:
                print(error.code().value[0], flush=True)


if __name__ == "__main__":
    main()
