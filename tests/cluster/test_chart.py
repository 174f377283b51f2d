"""The Helm chart: its objects are the overlays', and Helm and the real API server accept them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from reconciler import __version__
from reconciler.telemetry.otlp import resource_of
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.helm import CHART, RELEASE, comparable, helm, template, values_of
from tests.cluster.manifests import (
    MANIFESTS,
    Object,
    define,
    kubectl,
    of_kind,
    only,
    overlay,
    settings_of,
    write,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

MODES = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
"""Every overlay, each with a file of values."""

FORMER = Path(__file__).with_name("former") / "cluster-wide.yaml"
"""The objects of the overlay cluster-wide before there was a chart."""

DIGEST = f"sha256:{'0' * 64}"
CA = "-----BEGIN CERTIFICATE-----\nobviously-fake\n-----END CERTIFICATE-----\n"


NUMBER = "123"


def leaves(found: object) -> Iterator[object]:
    """Yield every key and scalar of a document."""
    if isinstance(found, dict):
        yield from found
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from leaves(one)
    else:
        yield found


def home_of(mode: str) -> str:
    return str(only(overlay(mode), "ServiceAccount")["metadata"]["namespace"])


def chart(mode: str, *arguments: str) -> list[Object]:
    """Return the chart's objects with the values that make it the overlay."""
    return template(home_of(mode), f"--values={values_of(mode)}", *arguments)


def pod(objects: list[Object]) -> Object:
    return dict(only(objects, "Deployment")["spec"]["template"]["spec"])


def environment(objects: list[Object]) -> dict[str, object]:
    [container] = pod(objects)["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


class TestObjects:
    @pytest.mark.parametrize("mode", MODES)
    def test_are_those_of_the_overlay(self, mode: str) -> None:
        theirs, ours = comparable(overlay(mode)), comparable(chart(mode))
        assert ours.keys() == theirs.keys()
        for name, found in ours.items():
            assert found == theirs[name], name

    @pytest.mark.parametrize("render", [overlay, chart])
    def test_name_the_pod_in_its_traces(
        self, render: Callable[[str], list[Object]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=east")
        [container] = pod(render("cluster-wide"))["containers"]
        of_pod = {"metadata.namespace": "ambient-code", "metadata.name": "a-b", "metadata.uid": "1"}
        environ = {
            one["name"]: of_pod[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container["env"]
            if "valueFrom" in one
        }
        found = resource_of(environ["RECONCILER_REPLICA"], environ).attributes
        assert {
            "service.namespace": "ambient-code",
            "service.version": __version__,
            "service.instance.id": "a-b",
            "k8s.namespace.name": "ambient-code",
            "k8s.pod.name": "a-b",
            "k8s.cluster.name": "east",
        }.items() <= found.items()

    def test_that_differ_in_one_value_are_found(self) -> None:
        changed = comparable(chart("cluster-wide", "--set=terminationGracePeriodSeconds=31"))
        theirs = comparable(overlay("cluster-wide"))
        different = [name for name in theirs if changed[name] != theirs[name]]
        assert different == [("Deployment", "ambient-code", "token-reconciler")]

    @pytest.mark.parametrize("mode", MODES)
    def test_name_helm_as_their_manager(self, mode: str) -> None:
        for found in chart(mode):
            labels = found["metadata"]["labels"]
            assert labels["app.kubernetes.io/managed-by"] == "Helm"
            assert labels["helm.sh/chart"] == f"token-reconciler-{__version__}"

    def test_of_another_release_have_its_name_and_select_its_pods_alone(self) -> None:
        objects = template("elsewhere", release="blue")
        home = {found["metadata"].get("namespace", "elsewhere") for found in objects}
        assert home == {"elsewhere"}
        names = {found["metadata"]["name"] for found in objects}
        assert all(name.startswith("blue-token-reconciler") for name in names)
        selectors = [
            only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
            only(objects, "Service")["spec"]["selector"],
            only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
            *(
                spread["labelSelector"]["matchLabels"]
                for spread in pod(objects)["topologySpreadConstraints"]
            ),
        ]
        wanted = {
            "app.kubernetes.io/name": "token-reconciler",
            "app.kubernetes.io/instance": "blue",
        }
        assert selectors == [wanted] * 6
        labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert wanted.items() <= labels.items()
        account = "blue-token-reconciler"
        for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
            assert binding["subjects"] == [
                {"kind": "ServiceAccount", "name": account, "namespace": "elsewhere"}
            ]
        bound = [
            binding["spec"]["paramRef"] | {"policy": binding["spec"]["policyName"]}
            for binding in of_kind(objects, "ValidatingAdmissionPolicyBinding")
        ]
        assert bound == [
            {
                "name": account,
                "namespace": "elsewhere",
                "parameterNotFoundAction": "Allow",
                "policy": policy["metadata"]["name"],
            }
            for policy in of_kind(objects, "ValidatingAdmissionPolicy")
        ]
        policies = json.dumps(of_kind(objects, "ValidatingAdmissionPolicy"))
        assert "token-reconciler'" not in policies

    def test_of_shards_are_a_deployment_and_a_budget_for_each(self) -> None:
        objects = template("ambient-code", "--set=shards.count=2,shards.keepSingle=true")
        found = of_kind(objects, "Deployment")
        assert [one["metadata"]["name"] for one in found] == [
            "token-reconciler", "token-reconciler-0", "token-reconciler-1"
        ]  # fmt: skip
        shards = []
        for one, budget in zip(found, of_kind(objects, "PodDisruptionBudget"), strict=True):
            selector = one["spec"]["selector"]
            assert budget["spec"]["selector"] == selector
            template_labels = one["spec"]["template"]["metadata"]["labels"]
            assert selector["matchLabels"].items() <= template_labels.items()
            shard = selector["matchLabels"].get("ambient-code.io/shard")
            assert environment([one]).get("RECONCILER_SHARD") == (shard and f"{shard}/2")
            shards.append(shard)
        assert shards == [None, "0", "1"]
        [role] = of_kind(objects, "Role")
        assert role["rules"][1]["resourceNames"] == [
            "token-reconciler", "token-reconciler-0", "token-reconciler-1"
        ]  # fmt: skip

    def test_keep_as_text_what_yaml_reads_as_a_number(self, tmp_path: Path) -> None:
        """The namespace `123` and the Secret `123` exist; a number is refused in their place."""
        values = {
            "nameOverride": NUMBER,
            "commonLabels": {"a": NUMBER},
            "image": {"repository": NUMBER, "tag": NUMBER},
            "imagePullSecrets": [{"name": NUMBER}],
            "settings": {"RECONCILER_LEASE_NAME": NUMBER},
            "credentials": dict.fromkeys(("secretName", "clientIdKey", "clientSecretKey"), NUMBER),
            "rights": {"scope": "namespaces", "namespaces": [NUMBER]},
            "projectAccount": {"secretName": NUMBER, "tokenKey": NUMBER},
            "serviceAccount": {"name": NUMBER, "annotations": {"a": NUMBER}},
            "privateCA": {"certificates": CA, "key": NUMBER},
            "proxy": {"http": NUMBER},
            "podLabels": {"b": NUMBER},
            "priorityClassName": NUMBER,
            "networkPolicy": {"prometheusNamespaces": [NUMBER]},
            "serviceMonitor": {"enabled": True, "labels": {"b": NUMBER}},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True},
        }
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        for release in (NUMBER, f"{NUMBER}-{NUMBER}"):
            found = list(leaves(template(NUMBER, f"--values={file}", release=release)))
            assert NUMBER in found
            assert int(NUMBER) not in found

    @pytest.mark.parametrize(
        ("overrides", "name"),
        [
            (["--set=nameOverride=tokens"], "blue-2-tokens"),
            (["--set=fullnameOverride=tokens"], "tokens"),
            (["--set-string=fullnameOverride=null"], "null"),
            ([], "blue-2-token-reconciler"),
        ],
    )
    def test_have_the_name_that_overrides_give(self, overrides: list[str], name: str) -> None:
        objects = template("elsewhere", *overrides, release="blue.2")
        assert only(objects, "Deployment")["metadata"]["name"] == name
        assert pod(objects)["serviceAccountName"] == name


class TestValues:
    def test_put_a_private_ca_into_the_config_map_that_the_pods_project(
        self, tmp_path: Path
    ) -> None:
        values = tmp_path / "values.yaml"
        values.write_text(yaml.safe_dump({"privateCA": {"certificates": CA}}))
        objects = template("ambient-code", f"--values={values}")
        [added] = [
            one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"].endswith("-ca")
        ]
        assert added["metadata"]["name"] == "token-reconciler-ca"
        assert added["data"] == {"ca.crt": CA}

    def test_name_a_config_map_of_the_site_instead(self) -> None:
        objects = template(
            "ambient-code", "--set=privateCA.configMap=site-ca,privateCA.key=bundle.pem"
        )
        [account] = [one for one in pod(objects)["volumes"] if one["name"] == "account"]
        wanted = {
            "name": "site-ca",
            "optional": True,
            "items": [{"key": "bundle.pem", "path": "private-ca.crt"}],
        }
        assert {"configMap": wanted} in account["projected"]["sources"]

    def test_reach_the_pods(self, tmp_path: Path) -> None:
        values = {
            "image": {"repository": "registry.example/tokens", "digest": DIGEST},
            "imagePullSecrets": [{"name": "registry"}],
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podLabels": {"team": "platform"},
            "podAnnotations": {"example.com/note": "x"},
            "proxy": {"https": "http://proxy.example:3128", "noProxy": ".svc,10.0.0.0/8"},
            "extraEnv": [{"name": "RECONCILER_WORKERS", "value": "32"}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "resources": {"limits": {"memory": "1Gi", "cpu": 1}},
            "settings": {"RECONCILER_RESYNC_S": 1000000, "RECONCILER_TOUCH": False},
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"own": "x"}}}
            ],
        }
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        objects = template("ambient-code", f"--values={file}")
        spec = pod(objects)
        for name in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations",
                     "affinity", "topologySpreadConstraints"):  # fmt: skip
            assert spec[name] == values[name]
        [container] = spec["containers"]
        assert container["image"] == f"registry.example/tokens@{DIGEST}"
        assert container["resources"]["limits"] == {"memory": "1Gi", "cpu": 1}
        assert container["volumeMounts"][-1] == {"name": "more", "mountPath": "/more"}
        assert spec["volumes"][-1] == {"name": "more", "emptyDir": {}}
        given = environment(objects)
        assert given["RECONCILER_WORKERS"] == "32"
        metadata = only(objects, "Deployment")["spec"]["template"]["metadata"]
        assert metadata["labels"]["team"] == "platform"
        assert metadata["annotations"]["example.com/note"] == "x"
        settings = settings_of(objects)
        assert settings["HTTPS_PROXY"] == "http://proxy.example:3128"
        assert settings["NO_PROXY"] == ".svc,10.0.0.0/8"
        assert "HTTP_PROXY" not in settings
        assert (settings["RECONCILER_RESYNC_S"], settings["RECONCILER_TOUCH"]) == (
            "1000000",
            "false",
        )

    def test_replace_the_client_by_a_static_token(self) -> None:
        objects = template("ambient-code", "--set=credentials.kind=staticToken")
        given = environment(objects)
        assert given["AMBIENT_API_TOKEN_FILE"] == "/var/run/secrets/token-reconciler/token"
        assert not [name for name in given if name.startswith("OIDC_")]
        [volume] = [one for one in pod(objects)["volumes"] if one["name"] == "credentials"]
        assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]

    def test_that_change_a_setting_roll_out_the_pods(self) -> None:
        def checksum(*arguments: str) -> object:
            found = only(template("ambient-code", *arguments), "Deployment")
            return found["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]

        assert checksum() == checksum("--set=replicas=3")
        assert checksum() != checksum("--set=settings.LOG_LEVEL=debug")

    def test_keep_rights_and_policies_with_the_settings_that_they_follow(self) -> None:
        objects = template(
            "ambient-code",
            "--set=settings.RECONCILER_LEASE_NAME=other,settings.RECONCILER_PREFIX=example.com",
            "--set=settings.RECONCILER_SECRET_KEY=jwt",
            "--set=settings.RECONCILER_SECRET_PATTERN=run-\\{id\\}-token",
        )
        [role] = of_kind(objects, "Role")
        assert [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule] == [
            ["other"]
        ]
        policies = json.dumps(of_kind(objects, "ValidatingAdmissionPolicy"))
        for former in ("ambient-code.io", "api-token", "session-.+-creds"):
            assert former not in policies
        for now in ("'example.com/session-id'", "'jwt'", "'^run-.+-token$'"):
            assert now in policies

    def test_let_the_alerts_follow_the_job_and_the_runbooks(self) -> None:
        objects = template(
            "ambient-code",
            "--set=prometheusRule.enabled=true,serviceMonitor.enabled=true,nameOverride=tokens",
            "--set=settings.RECONCILER_RUNBOOK_URL=https://docs.example/runbooks.md",
            release="blue",
        )
        rules = json.dumps(only(objects, "PrometheusRule"))
        job = only(objects, "ServiceMonitor")["spec"]["jobLabel"]
        assert only(objects, "Service")["metadata"]["labels"][job] == "tokens"
        assert 'up{job=\\"tokens\\"}' in rules
        assert 'job=\\"token-reconciler\\"' not in rules
        urls = re.findall(r'"runbook_url": "([^"]+)"', rules)
        assert len(urls) > 10
        assert {url.partition("#")[0] for url in urls} == {"https://docs.example/runbooks.md"}


class TestSchema:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("replica=3", "additional properties 'replica' not allowed"),
            ("image.tga=1.0", "additional properties 'tga' not allowed"),
            ("image.tag=5", "got number, want string"),
            ("image.digest=sha256:ab", "does not match pattern"),
            ("replicas=two", "got string, want integer"),
            ("rights.scope=team", "must be one of"),
            ("rights.scope=namespaces", "minItems: got 0, want 1"),
            ("settings.RECONCILER_WORKER=3", "'RECONCILER_WORKER' not allowed"),
            ("settings.OIDC_CLIENT_SECRET=obviously-fake", "'OIDC_CLIENT_SECRET' not allowed"),
            ("serviceAccount.create=false", "serviceAccount.name is required"),
            ("privateCA.certificates=x,privateCA.configMap=y", "not both"),
            ("confinement.enabled=null", "missing property 'enabled'"),
            ("networkPolicy.egressPorts=null", "missing property 'egressPorts'"),
            ("privateCA=null", "missing property 'privateCA'"),
            ("settings=null", "missing property 'settings'"),
            ("settings.OTEL_EXPORTER_OTLP_HEADERS=x=y", "'not' failed"),
            # The probes and the Service have the port.
            ("settings.RECONCILER_LISTEN=:9090", "'RECONCILER_LISTEN' not allowed"),
            ("proxy.https=http://user:obviously-fake@proxy.example", "does not match pattern"),
            ("image.repository=registry.example/tokens:1.0", "does not match pattern"),
            ("image.repository=registry.example/Tokens", "does not match pattern"),
            ("nameOverride=Tokens", "does not match pattern"),
            ("fullnameOverride=a.b", "does not match pattern"),
            ("extraEnv[0].name=NAMESPACE,extraEnv[0].value=x", "'not' failed"),
        ],
    )
    def test_refuses_a_wrong_value(self, value: str, message: str) -> None:
        done = helm("template", RELEASE, str(CHART), f"--set={value}")
        assert done.returncode != 0
        assert message in done.stderr

    @pytest.mark.parametrize("mode", MODES)
    def test_and_helm_lint_find_nothing_wrong(self, mode: str) -> None:
        done = helm("lint", "--strict", str(CHART), f"--values={values_of(mode)}")
        assert done.returncode == 0, done.stdout
        assert "[WARNING]" not in done.stdout


def test_the_package_has_what_helm_reads_and_nothing_else(tmp_path: Path) -> None:
    done = helm("package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr
    packed = helm("template", RELEASE, str(tmp_path / f"token-reconciler-{__version__}.tgz"))
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout == helm("template", RELEASE, str(CHART)).stdout


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An admin's kubeconfig for a cluster with the modes' namespaces and the operator's kinds."""
    folder = tmp_path_factory.mktemp("chart")
    path = control_plane.kubeconfig(folder / "config")
    names = {home_of(mode) for mode in MODES} | {"team-a", "team-b"}
    namespaces: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in sorted(names)
    ]
    needed = write(namespaces, folder / "needed.json")
    assert kubectl("apply", "-f", str(needed), kubeconfig=path).returncode == 0
    define(path, "servicemonitor", "prometheusrule")
    return path


Helm = Callable[..., str]
"""Runs Helm with the admin's kubeconfig, and returns its output; it must succeed."""


@pytest.fixture
def release(kubeconfig: Path) -> Helm:
    def run(*arguments: str) -> str:
        done = helm(*arguments, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


class TestServer:
    @pytest.mark.parametrize("mode", MODES)
    def test_takes_every_object_strictly_and_without_a_warning(
        self, mode: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        file = write(chart(mode), tmp_path / "all.json")
        done = kubectl(
            "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
        )
        assert (done.returncode, done.stderr) == (0, "")

    async def test_installs_upgrades_rolls_back_and_uninstalls(
        self, release: Helm, kubeconfig: Path, admin: Admin, namespace: str
    ) -> None:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/blue-token-reconciler"
        place = f"--namespace={namespace}"
        notes = release("install", "blue", str(CHART), place)
        assert "settings.OIDC_TOKEN_URL is not set" in notes
        first = await admin.expect("GET", path)
        url = "settings.OIDC_TOKEN_URL=https://issuer.example/token"
        notes = release("upgrade", "blue", str(CHART), place, f"--set={url},replicas=3")
        assert "WARNING" not in notes
        upgraded = await admin.expect("GET", path)
        assert upgraded["metadata"]["uid"] == first["metadata"]["uid"]
        assert upgraded["spec"]["replicas"] == 3
        assert upgraded["spec"]["template"] != first["spec"]["template"]
        release("rollback", "blue", place)
        back = await admin.expect("GET", path)
        assert back["metadata"]["uid"] == first["metadata"]["uid"]
        assert back["spec"] == first["spec"]
        objects = template(namespace, release="blue")
        kinds = ",".join(sorted({found["kind"].lower() for found in objects}))

        def labelled() -> list[str]:
            done = kubectl(
                "get", kinds, place, "-o", "name", "-l", "app.kubernetes.io/instance=blue",
                kubeconfig=kubeconfig,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout.split()

        assert len(labelled()) == len(objects)
        release("uninstall", "blue", place)
        assert labelled() == []
        gone = helm("status", "blue", place, kubeconfig=kubeconfig)
        assert "not found" in gone.stderr

    def test_gets_no_second_release_that_would_share_a_lease(
        self, release: Helm, kubeconfig: Path, namespace: str
    ) -> None:
        place = f"--namespace={namespace}"
        release("install", "cyan", str(CHART), place, "--set=shards.count=2")
        # Nor one that has a Lease of a shard.
        for lease in ("token-reconciler", "token-reconciler-1"):
            name = f"--set=settings.RECONCILER_LEASE_NAME={lease}"
            refused = helm("install", "lime", str(CHART), place, name, kubeconfig=kubeconfig)
            assert refused.returncode != 0
            assert (
                f"The release cyan in the namespace {namespace} has the Lease {lease}, too: one of"
                " the two would never write a token. Uninstall it first, or install lime into"
                ' another namespace (docs/install.md, "A second installation").'
            ) in refused.stderr
        release("upgrade", "cyan", str(CHART), place, "--set=fullnameOverride=other")
        upgrade = ("upgrade", "lime", str(CHART), place, "--reset-values")
        own = "--set=settings.RECONCILER_LEASE_NAME=own"
        release("install", "lime", str(CHART), place, own)
        switched = helm(*upgrade, kubeconfig=kubeconfig)
        assert "The release cyan in the namespace" in switched.stderr
        release("uninstall", "cyan", place)
        release(*upgrade)
        release("uninstall", "lime", place)

    def test_gets_no_release_next_to_an_installation_by_kustomize(
        self, kubeconfig: Path, namespace: str, tmp_path: Path
    ) -> None:
        [role] = [
            one
            for one in of_kind(overlay("cluster-wide"), "Role")
            if "namespace" in one["metadata"]
        ]
        role["metadata"]["namespace"] = namespace
        file = write([role], tmp_path / "role.json")
        assert kubectl("apply", "-f", str(file), kubeconfig=kubeconfig).returncode == 0
        place = f"--namespace={namespace}"
        refused = helm("install", "lime", str(CHART), place, kubeconfig=kubeconfig)
        assert "The installation with the Role token-reconciler-lease in the" in refused.stderr
        # What the release itself would be called is taken over, with the flag of the guide.
        taken = helm(
            "install", RELEASE, str(CHART), place, "--dry-run=server", kubeconfig=kubeconfig
        )
        assert "cannot be imported into the current release" in taken.stderr

    def test_is_not_refused_for_a_role_that_only_reads_the_lease(
        self, release: Helm, kubeconfig: Path, namespace: str, tmp_path: Path
    ) -> None:
        reads = {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["token-reconciler"],
            "verbs": ["get", "watch"],
        }
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "reads-leases", "namespace": namespace},
            "rules": [reads],
        }
        file = write([role], tmp_path / "role.json")
        assert kubectl("apply", "-f", str(file), kubeconfig=kubeconfig).returncode == 0
        release("install", "lime", str(CHART), f"--namespace={namespace}", "--dry-run=server")

    async def test_upgrades_as_the_guide_says_what_somebody_changed_by_kubectl(
        self, release: Helm, kubeconfig: Path, admin: Admin, namespace: str
    ) -> None:
        place = f"--namespace={namespace}"
        release("install", "green", str(CHART), place)
        target = ("deployment/green-token-reconciler", f"--namespace={namespace}")
        changed = kubectl("set", "image", *target, "reconciler=other:1", kubeconfig=kubeconfig)
        assert changed.returncode == 0, changed.stderr
        upgrade = ("upgrade", "green", str(CHART), place, "--set=image.tag=0.1.1")
        guide = (MANIFESTS.parent / "docs/upgrade.md").read_text()
        flag = "--force-conflicts"
        assert f"Repeat the command once with `{flag}`" in guide
        refused = helm(*upgrade, kubeconfig=kubeconfig)
        assert "Apply failed with 1 conflict: conflict with" in refused.stderr
        release(*upgrade, flag)
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/green-token-reconciler"
        image = pod([await admin.expect("GET", path)])["containers"][0]["image"]
        assert image == "runner-token-reconciler:0.1.1"
        release("upgrade", "green", str(CHART), place)
        release("uninstall", "green", place)

    async def test_hands_over_what_kustomize_applied_of_the_former_version_and_back(
        self, release: Helm, kubeconfig: Path, admin: Admin
    ) -> None:
        path = "/apis/apps/v1/namespaces/ambient-code/deployments/token-reconciler"
        done = kubectl("apply", "-f", str(FORMER), kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        before = await admin.expect("GET", path)
        place = "--namespace=ambient-code"
        # Without the flags of the guide Helm refuses objects that it did not make.
        refused = helm("upgrade", "--install", RELEASE, str(CHART), place, kubeconfig=kubeconfig)
        assert "cannot be imported into the current release" in refused.stderr
        taken = ("--take-ownership", "--server-side=false")
        release("upgrade", "--install", RELEASE, str(CHART), place, *taken)
        after = await admin.expect("GET", path)
        # The same Deployment with the same selector: its pods are replaced one by one.
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["spec"]["selector"] == before["spec"]["selector"]
        assert after["spec"]["strategy"] == before["spec"]["strategy"]
        # Pods of the former version may start again until they are replaced.
        [former] = [
            source["configMapRef"]["name"]
            for source in before["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        ]
        await admin.expect("GET", f"/api/v1/namespaces/ambient-code/configmaps/{former}")
        release("upgrade", RELEASE, str(CHART), place, "--set=replicas=3")
        assert (await admin.expect("GET", path))["spec"]["replicas"] == 3
        release("rollback", RELEASE, "1", place)
        assert (await admin.expect("GET", path))["spec"]["replicas"] == 2
        done = kubectl("delete", "secrets", "-n", "ambient-code", "-l",
                       "owner=helm,name=token-reconciler", kubeconfig=kubeconfig)  # fmt: skip
        assert done.returncode == 0, done.stderr
        done = kubectl("apply", "-f", str(FORMER), kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        back = await admin.expect("GET", path)
        assert back["metadata"]["uid"] == before["metadata"]["uid"]
        # Labels and annotations that only the chart has stay on the pods' template.
        assert back["spec"]["template"]["spec"] == before["spec"]["template"]["spec"]
        ours = ("configmaps", "-n", "ambient-code", "-l", f"app.kubernetes.io/name={RELEASE}")
        for which in (("-f", str(FORMER)), ours):  # as the guide removes an installation
            done = kubectl("delete", *which, "--wait=false", kubeconfig=kubeconfig)
            assert done.returncode == 0, done.stderr
