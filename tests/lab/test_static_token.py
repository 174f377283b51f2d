"""A real `reconciler run` on a static token's file, which a kubelet changes under it."""

import asyncio
import base64

from reconciler.lab.apiserver import kinds
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.kubelet.kubelet import project_files
from tests.controller import running

OLD, NEW = "obviously-fake-static-token-1", "obviously-fake-static-token-2"
SESSIONS = 3


class Door:
    """Lets the platform accept one token at a time."""

    def __init__(self) -> None:
        self.accepts = OLD
        self.passed = asyncio.Event()

    def verify(self, token: str) -> bool:
        if token != self.accepts:
            return False
        self.passed.set()
        return True


def token_of(lab: LabCluster, session: LabSession) -> str:
    secret = lab.core.get(kinds.SECRETS, session.namespace, session.secret)
    return base64.b64decode(secret["data"][lab.names.secret_key]).decode()


async def test_a_swapped_file_reaches_the_platform_and_every_session_without_a_restart() -> None:
    door = Door()
    async with LabCluster() as lab:
        lab.platform.verify = door.verify
        lab.populate(SESSIONS)
        folder = lab.kubectl_config().parent / "static"
        project_files(folder, {"token": OLD.encode()})
        environment = {
            name: value for name, value in lab.environment().items() if "OIDC" not in name
        }
        environment |= {
            "AMBIENT_API_TOKEN_FILE": str(folder / "token"),
            "RECONCILER_RESYNC_S": "5",
            "LOG_LEVEL": "debug",
        }
        async with running(environment) as controller:
            await controller.wait_for_event("runner_token_refreshed", count=SESSIONS)
            assert {token_of(lab, each) for each in lab.sessions.values()} == {OLD}
            door.accepts = NEW
            door.passed.clear()
            project_files(folder, {"token": NEW.encode()})
            await controller.wait_for_event("runner_token_refreshed", count=2 * SESSIONS)
            assert {token_of(lab, each) for each in lab.sessions.values()} == {NEW}
            async with asyncio.timeout(20):
                await door.passed.wait()
            project_files(folder, {})
            (folder / "token").unlink()
            await controller.wait_for_event("static_token_reload_failed")
            assert await controller.terminate() == 0
        reasons = [line["reason"] for line in controller.events("runner_token_refreshed")]
        shown = "".join(controller.text)
    assert reasons.count("token_replaced") == len(reasons) - SESSIONS == SESSIONS
    assert "No such file" in shown
    assert OLD not in shown
    assert NEW not in shown
