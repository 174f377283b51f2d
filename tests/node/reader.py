"""Runs inside a runner's container: reads the token file and counts expired-token seconds.

Prints one JSON object a second: `expired_s`, the time in which the newest readable token was
expired; `tokens`, the number of different tokens; `left_s`, the remaining life of the present one.
It never prints a token. It needs only the standard library: the image has no other package for it.
"""

import base64
import json
import sys
import time
from pathlib import Path

from reconciler.clock import EPOCH, EpochTime

FILE = Path("/var/run/secrets/ambient/bot-token")
LOOK_S = 0.05
SAY_S = 1.0


def expiry_s(token: str) -> EpochTime:
    """Return the `exp` of a JWT."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return EpochTime(claims["exp"])


class Ledger:
    """Adds up the time in which the newest token read so far was expired."""

    def __init__(self, now_s: EpochTime) -> None:
        self.expired_s = 0.0
        self.best_s = EPOCH
        self._seen: set[str] = set()
        self._before_s = now_s

    @property
    def tokens(self) -> int:
        """Number of different tokens that were read."""
        return len(self._seen)

    def look(self, token: str, now_s: EpochTime) -> None:
        """Record the file's token at `now_s`; the time since the last read is the former one's."""
        self.expired_s += max(0.0, now_s - max(self.best_s, self._before_s)) if self._seen else 0.0
        self._seen.add(token)
        self.best_s = max(self.best_s, expiry_s(token))
        self._before_s = now_s


def main() -> None:
    ledger = Ledger(EpochTime(time.time()))
    said_s = 0.0
    while True:
        now_s = time.time()
        try:
            ledger.look(FILE.read_text(), EpochTime(now_s))
        except FileNotFoundError:  # the kubelet replaces the directory (kubernetes#92851)
            time.sleep(LOOK_S)
            continue
        if now_s - said_s >= SAY_S:
            said_s = now_s
            line = {
                "expired_s": ledger.expired_s,
                "tokens": ledger.tokens,
                "left_s": ledger.best_s - now_s,
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
