"""The platform's mpp mode on the node, with the shortest possible tokens of every account."""

import asyncio
from pathlib import Path

from reconciler.platform.models import project_namespace
from tests.cluster.accounts import SHORTEST_S, account_token, create_account, session_rules
from tests.cluster.admin import MERGE, SECRETS, item
from tests.cluster.manifests import RESTRICTED
from tests.cluster.world import World
from tests.image.build import IMAGE
from tests.node.installation import Installation, add_runners, make_home
from tests.node.node import Node

OWN, CONFIG = "ambient-code--runtime-int", "ambient-code--config"
ACCOUNT = "tenantaccess-ambient-control-plane"
TOKEN = f"{ACCOUNT}-token"
OWN_USER = f"system:serviceaccount:{OWN}:token-reconciler"
TENANT_USER = f"system:serviceaccount:{CONFIG}:{ACCOUNT}"
ACCOUNT_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
TENANT_FILE = "/var/run/secrets/project-kube/token"

Place = tuple[str, str]
"""A pod and a file in it."""

SITE = f"""
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../manifests/overlays/mpp
images:
  - name: runner-token-reconciler
    newName: {IMAGE.rpartition(":")[0]}
configMapGenerator:
  - name: token-reconciler-settings
    namespace: {OWN}
    behavior: merge
    literals:
      - AMBIENT_API_SERVER_URL=PLATFORM
      - OIDC_TOKEN_URL=ISSUER
patches:
  # The base's account lives an hour; this is the same volume with another life.
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: token-reconciler
      spec:
        template:
          spec:
            volumes:
              - name: account
                projected:
                  sources:
                    - serviceAccountToken:
                        path: token
                        expirationSeconds: {SHORTEST_S}
                    - configMap:
                        name: kube-root-ca.crt
                        items:
                          - key: ca.crt
                            path: ca.crt
                    - downwardAPI:
                        items:
                          - path: namespace
                            fieldRef:
                              fieldPath: metadata.namespace
"""


async def install(world: World, node: Node, home: Path) -> Installation:
    """Create two tenants with runners, and install the overlay for them."""
    for namespace in (OWN, CONFIG):
        labels = RESTRICTED if namespace == OWN else {}
        await world.admin.create_namespace(namespace, labels=labels)
    await create_account(world.admin, CONFIG, ACCOUNT)
    places = {project: project_namespace(project, "mpp") for project in ("blue", "green")}
    runners = await add_runners(world, node, places, each=1)
    for namespace in places.values():
        await world.admin.grant(TENANT_USER, session_rules(), namespace=namespace)
    await give_token(world)
    words = {"clientId": world.issuer.client_id, "clientSecret": world.issuer.client_secret}
    await world.admin.create_secret(OWN, "ambient-api-server", words)
    site = SITE.replace("PLATFORM", world.platform.url).replace("ISSUER", world.issuer.token_url)
    made = Installation(world, node, OWN, make_home(home, site=site), runners)
    await made.sh("kubectl apply -k site")
    await made.sh(f"kubectl -n {OWN} rollout status deployment/token-reconciler --timeout=120s")
    return made


async def give_token(world: World) -> str:
    """Write a new token of the tenants' account into the Secret of the Deployment; return it."""
    token = await account_token(world.admin, CONFIG, ACCOUNT, seconds=SHORTEST_S)
    path = item(OWN, SECRETS, TOKEN)
    body = {"stringData": {"token": token}}
    if (await world.admin.call("PATCH", path, body, content_type=MERGE)).status == 404:
        await world.admin.create_secret(OWN, TOKEN, body["stringData"])
    return token


async def keep_giving(world: World) -> None:
    """Write a new token at half of the former one's life, as the platform's token account does."""
    while True:
        await asyncio.sleep(SHORTEST_S / 2)
        await give_token(world)


CREDENTIAL = """
import base64, json
payload = open({file!r}).read().split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
print("JTI=" + claims["jti"])
"""
"""Prints a token's name in the audit log; the token stays in the pod."""


async def account_tokens(made: Installation) -> dict[Place, str]:
    """Return the name of the present account token in each file of each pod, as `Seen` has it."""
    return {
        (pod, file): (await made.ask(pod, CREDENTIAL.format(file=file))).strip()
        for pod in await made.pods()
        for file in (ACCOUNT_FILE, TENANT_FILE)
    }
