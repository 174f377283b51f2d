"""A rotation of the client secret in the file of a real `reconciler run`, and its next start."""

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.kubelet.kubelet import project_files
from tests.controller import running

NEW = "obviously-fake-second-client-secret"
SESSIONS = 3
OPERATOR = Caller("operator", "kubectl", "kubectl")


async def test_a_rotated_secret_confirms_what_is_written_and_a_start_without_the_platform() -> None:
    async with LabCluster() as lab:
        lab.populate(SESSIONS)
        folder = lab.kubectl_config().parent / "client"
        project_files(folder, {"secret": lab.issuer.client_secret.encode()})
        environment = lab.environment() | {"OIDC_CLIENT_SECRET_FILE": str(folder / "secret")}
        environment.pop("OIDC_CLIENT_SECRET")
        async with running(environment) as first:
            await first.wait_for_event("startup_resync_finished")
            lab.issuer.client_secret = NEW
            project_files(folder, {"secret": NEW.encode()})
            await first.wait_for_event("confirmation_key_changed")
            written = len(first.events("runner_token_refreshed"))
            for session in lab.sessions.values():
                asked = {"metadata": {"annotations": {lab.names.requested_at: "now"}}}
                lab.core.patch(kinds.SECRETS, session.namespace, session.secret, asked, by=OPERATOR)
            await first.wait_for_event("runner_token_refreshed", count=written + SESSIONS)
            assert await first.terminate() == 0
        lab.platform.faults.status = 503
        async with running(environment) as second:
            await second.wait_for_event("runner_token_refreshed", count=SESSIONS)
            assert await second.terminate() == 0
        shown = "".join([*first.text, *second.text])
    assert NEW not in shown
