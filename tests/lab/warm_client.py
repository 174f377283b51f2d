"""Has a command run with this program's words, environment, folder and standard files.

`python -I -S warm_client.py SOCKET WORD...` ends with the command's exit code. It imports nothing
that takes time.
"""

import json
import os
import socket
import sys


def ask(path: str, words: list[str]) -> int:
    """Send the request to `warm_start.py`, and wait for the exit code."""
    request = {"words": words, "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        return int(connection.recv(16))


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
