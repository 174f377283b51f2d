"""`python -m tests.bench.peers.kopf.operator`: a token operator on a timer, as kopf's users do it.

It reads KUBECONFIG, OIDC_TOKEN_URL, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET, PEER_LABEL (name=value, on
its Secrets), PEER_SESSIONS (how many) and PEER_INTERVAL_S. It prints JSON lines as the Go peer.
kopf has no event for the first complete list: `synced` is the first call of the timer.
"""

import asyncio
import base64
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp
import kopf

from reconciler.clock import EpochTime, format_utc, format_utc_millis
from reconciler.naming import Names

NAMES = Names()
LABEL, _, VALUE = os.environ["PEER_LABEL"].partition("=")
SESSIONS = int(os.environ["PEER_SESSIONS"])
MIN_REMAINING = 0.8
"""Of a token's life: with less left, the issuer is asked for a new one."""

held: dict[str, Any] = {"until_s": 0.0}
asking = asyncio.Lock()
writer = f"kopf peer {time.time_ns()}"
written: set[str] = set()
began_s = 0.0


def event(name: str, **fields: Any) -> None:
    line = {"event": name, "timestamp": datetime.now(UTC).isoformat()} | fields
    print(json.dumps(line), file=sys.stderr, flush=True)


async def token() -> dict[str, Any]:
    async with asking:
        if time.time() >= held["until_s"]:
            form = {
                "grant_type": "client_credentials",
                "client_id": os.environ["OIDC_CLIENT_ID"],
                "client_secret": os.environ["OIDC_CLIENT_SECRET"],
            }
            async with (
                aiohttp.ClientSession(raise_for_status=True) as session,
                session.post(os.environ["OIDC_TOKEN_URL"], data=form) as response,
            ):
                answer = await response.json()
            now_s, life_s = time.time(), answer["expires_in"]
            held.update(value=answer["access_token"], issued_s=now_s, expires_s=now_s + life_s)
            held["until_s"] = now_s + (1 - MIN_REMAINING) * life_s
    return held


@kopf.timer(
    "", "v1", "secrets", labels={LABEL: VALUE}, interval=float(os.environ["PEER_INTERVAL_S"])
)
async def refresh(patch: kopf.Patch, **_: Any) -> None:
    global began_s
    if not began_s:
        began_s = time.time()
        event("synced")
    new = await token()
    patch.metadata.annotations[NAMES.issued_at] = format_utc(new["issued_s"])
    patch.metadata.annotations[NAMES.expires_at] = format_utc(new["expires_s"])
    patch.metadata.annotations[NAMES.refreshed_at] = format_utc_millis(EpochTime(time.time()))
    patch.metadata.annotations[NAMES.refreshed_by] = writer
    patch["data"] = {NAMES.secret_key: base64.b64encode(new["value"].encode()).decode()}


@kopf.on.event("", "v1", "secrets", labels={LABEL: VALUE})
def count(uid: str, annotations: kopf.Annotations, **_: Any) -> None:
    """Count the written Secrets: kopf sends a timer's PATCH after the timer has returned."""
    if annotations.get(NAMES.refreshed_by) != writer or uid in written:
        return
    written.add(uid)
    if len(written) == 1:
        event("runner_token_refreshed")
    if len(written) == SESSIONS:
        seconds = time.time() - began_s
        event("startup_resync_finished", refreshed=SESSIONS, seconds=seconds)


if __name__ == "__main__":
    asyncio.run(kopf.operator(standalone=True, clusterwide=True))
