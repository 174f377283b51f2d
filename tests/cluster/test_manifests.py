"""Every overlay: the real API server accepts it with strict validation, and it is complete."""

import os
import tempfile
from pathlib import Path

import pytest
import yaml

from reconciler import __version__
from reconciler.kube.auth.credentials import SERVICE_ACCOUNT
from reconciler.settings import Settings, load_settings
from tests.cluster.admin import Admin, collection
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import (
    MANIFESTS,
    OVERLAYS,
    RESTRICTED,
    Object,
    define,
    kubectl,
    of_kind,
    only,
    overlay,
    render,
    settings_of,
    write,
)
from tests.node.guide import blocks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def deployment(name: str) -> Object:
    return only(overlay(name), "Deployment")


def container(found: Object) -> Object:
    [one] = found["spec"]["template"]["spec"]["containers"]
    return dict(one)


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An admin's kubeconfig for a cluster with the overlays' namespaces, all restricted."""
    folder = tmp_path_factory.mktemp("manifests")
    path = control_plane.kubeconfig(folder / "config")
    names = {
        found["metadata"]["namespace"]
        for name in OVERLAYS
        for found in overlay(name)
        if "namespace" in found["metadata"]
    }
    namespaces: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        for name in sorted(names)
    ]
    needed = write(namespaces, folder / "needed.json")
    done = kubectl("apply", "-f", str(needed), kubeconfig=path)
    assert done.returncode == 0, done.stderr
    define(path, "servicemonitor", "prometheusrule")
    return path


def apply_strictly(file: Path, kubeconfig: Path) -> tuple[int, str]:
    """Return the exit code and kubectl's stderr, the server's warnings included."""
    done = kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
    )
    return done.returncode, done.stderr


class TestServer:
    @pytest.mark.parametrize("name", OVERLAYS)
    def test_takes_every_object_strictly_and_without_a_warning(
        self, name: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        assert apply_strictly(write(overlay(name), tmp_path / "all.json"), kubeconfig) == (0, "")

    def test_would_refuse_a_field_that_it_does_not_know(
        self, kubeconfig: Path, tmp_path: Path
    ) -> None:
        wrong = deployment("cluster-wide")
        wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        code, words = apply_strictly(write([wrong], tmp_path / "wrong.json"), kubeconfig)
        assert code != 0
        assert "readynessProbe" in words

    @pytest.mark.parametrize("name", OVERLAYS)
    async def test_takes_the_pods_into_restricted_namespaces(
        self, name: str, admin: Admin, kubeconfig: Path
    ) -> None:
        found = deployment(name)
        namespace = found["metadata"]["namespace"]
        pod = {"metadata": {"generateName": "token-reconciler-"}} | found["spec"]["template"]
        pod["metadata"] |= {"generateName": "token-reconciler-"}
        await admin.expect("POST", collection(namespace, "pods"), pod, dryRun="All")
        del pod["spec"]["securityContext"]
        refused = await admin.call("POST", collection(namespace, "pods"), pod, dryRun="All")
        assert refused.status == 403
        assert "PodSecurity" in refused.body["message"]


LABELS = {
    f"app.kubernetes.io/{name}": value
    for name, value in {
        "name": "token-reconciler",
        "instance": "token-reconciler",
        "version": __version__,
        "component": "controller",
        "part-of": "ambient-code",
        "managed-by": "kustomize",
    }.items()
}
"""Source: Kubernetes, "Recommended Labels"."""


class TestOverlays:
    @pytest.mark.parametrize("name", OVERLAYS)
    def test_label_every_object_and_the_pods(self, name: str) -> None:
        template = deployment(name)["spec"]["template"]
        for found in (*overlay(name), template):
            labels = found["metadata"]["labels"]
            assert {key: labels.get(key) for key in LABELS} == LABELS, found["metadata"]

    def test_make_the_runbooks_of_the_alerts_absolute_by_one_setting(self) -> None:
        address = "https://docs.example/tokens/runbooks.md"
        # kustomize reads no absolute path; a folder beside the overlays is a site's own.
        with tempfile.TemporaryDirectory(dir=MANIFESTS, prefix="site-") as folder:
            Path(folder, "kustomization.yaml").write_text(
                yaml.safe_dump({
                    "namespace": "elsewhere",
                    "resources": ["../overlays/monitoring"],
                    "components": ["../components/runbooks"],
                    "configMapGenerator": [{
                        "name": "token-reconciler-settings",
                        "namespace": "ambient-code",
                        "behavior": "merge",
                        "literals": [f"RECONCILER_RUNBOOK_URL={address}"],
                    }],
                })
            )  # fmt: skip
            objects = render(Path(folder))
        groups = only(objects, "PrometheusRule")["spec"]["groups"]
        rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
        assert len(rules) > 10
        for rule in rules:
            found = rule["annotations"]["runbook_url"]
            assert found == f"{address}#{rule['alert'].lower()}"
        assert settings_of(objects)["RECONCILER_RUNBOOK_URL"] == address

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_select_by_the_name_alone_since_a_selector_cannot_change(self, name: str) -> None:
        selector = deployment(name)["spec"]["selector"]
        assert selector == {"matchLabels": {"app.kubernetes.io/name": "token-reconciler"}}

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_selectors_meet_the_pods(self, name: str) -> None:
        objects = overlay(name)
        template = deployment(name)["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        selectors = [
            only(objects, "Service")["spec"]["selector"],
            only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
            only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            *(
                policy["spec"]["podSelector"]["matchLabels"]
                for policy in of_kind(objects, "NetworkPolicy")
            ),
            *(
                spread["labelSelector"]["matchLabels"]
                for spread in template["spec"]["topologySpreadConstraints"]
            ),
        ]
        assert all(selector and selector.items() <= labels for selector in selectors)

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_bindings_name_the_account_that_the_pods_have(self, name: str) -> None:
        objects = overlay(name)
        account = only(objects, "ServiceAccount")["metadata"]
        assert deployment(name)["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
        bindings = of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        roles = {
            (found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"])
            for found in of_kind(objects, "Role", "ClusterRole")
        }
        assert len(bindings) == len(roles)
        for found in bindings:
            [subject] = found["subjects"]
            assert (subject["namespace"], subject["name"]) == (
                account["namespace"],
                account["name"],
            )
            reference = found["roleRef"]
            namespace = found["metadata"].get("namespace")
            assert (reference["kind"], namespace, reference["name"]) in roles

    def test_follow_another_namespace_of_ours(self, tmp_path: Path) -> None:
        target = os.path.relpath(MANIFESTS / "overlays/cluster-wide", tmp_path.resolve())
        (tmp_path / "kustomization.yaml").write_text(
            f"namespace: elsewhere\nresources: [{target}]\n"
        )
        objects = render(tmp_path)
        bindings = of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        assert {found["subjects"][0]["namespace"] for found in bindings} == {"elsewhere"}

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("cluster-wide", "namespace: elsewhere"),
            ("cluster-wide", "nameSuffix: -blue"),
            ("cluster-wide", "namePrefix: blue-"),
            ("cluster-wide", "namePrefix: a-\nnameSuffix: -b\nnamespace: elsewhere"),
            ("shards", "namePrefix: blue-\nnamespace: elsewhere"),
            ("namespaces", "namePrefix: blue-"),
            ("mpp", "namePrefix: blue-"),
            ("mpp", "namespace: elsewhere"),
        ],
    )
    def test_confine_the_account_whatever_its_name_and_namespace(
        self, name: str, changes: str, tmp_path: Path
    ) -> None:
        confinement = "components: [MANIFESTS/components/confinement]\n"
        has_it = name in ("cluster-wide", "shards")
        between = tmp_path / "between"
        between.mkdir()
        self.extended(between, name, "" if has_it else confinement)
        (tmp_path / "kustomization.yaml").write_text(f"{changes}\nresources: [between]\n")
        objects = render(tmp_path)
        account = only(objects, "ServiceAccount")["metadata"]
        for pods in of_kind(objects, "Deployment"):
            assert pods["metadata"]["namespace"] == account["namespace"]
            assert pods["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
        assert [
            (found["spec"]["policyName"], found["spec"]["paramRef"])
            for found in of_kind(objects, "ValidatingAdmissionPolicyBinding")
        ] == [
            (
                policy["metadata"]["name"],
                {
                    "name": account["name"],
                    "namespace": account["namespace"],
                    "parameterNotFoundAction": "Allow",
                },
            )
            for policy in of_kind(objects, "ValidatingAdmissionPolicy")
        ]

    def test_of_namespaces_have_a_role_in_each_listed_one_and_no_cluster_role(self) -> None:
        objects = overlay("namespaces")
        assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
        listed = settings_of(objects)["RECONCILER_NAMESPACES"].split(",")
        roles = [
            found["metadata"]["namespace"]
            for found in of_kind(objects, "Role")
            if found["metadata"]["name"] == "token-reconciler"
        ]
        assert roles == listed

    def test_grant_the_same_everywhere_and_in_listed_namespaces(self) -> None:
        everywhere = only(overlay("cluster-wide"), "ClusterRole")["rules"]
        for role in of_kind(overlay("namespaces"), "Role"):
            if role["metadata"]["name"] == "token-reconciler":
                assert role["rules"] == everywhere

    def test_of_mpp_hold_the_lease_and_report_on_it_with_our_own_account_and_nothing_else(
        self,
    ) -> None:
        objects = overlay("mpp")
        [role] = of_kind(objects, "Role", "ClusterRole")
        held = {(*rule["resources"], *rule["verbs"]) for rule in role["rules"]}
        assert held == {
            ("leases", "create"),
            ("leases", "list", "watch", "patch"),
            ("events", "create", "patch"),
        }
        pod = deployment("mpp")["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount for mount in container(deployment("mpp"))["volumeMounts"]}
        volumes = {
            volume["name"]: volume["secret"]["secretName"]
            for volume in pod["volumes"]
            if "secret" in volume
        }
        assert volumes == {
            "credentials": "ambient-api-server",
            "project-kube": "tenantaccess-ambient-control-plane-token",
        }
        token_file = settings_of(objects)["PROJECT_KUBE_TOKEN_FILE"]
        assert Path(token_file).parent == Path(mounts["project-kube"]["mountPath"])
        assert "subPath" not in mounts["project-kube"]  # such a file never changes

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_keep_every_ready_replica_until_its_successor_is_ready(self, name: str) -> None:
        """A new replica is not ready before it has had a token; the old one has its own."""
        spec = deployment(name)["spec"]
        assert spec["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_mount_an_account_token_of_an_hour(self, name: str) -> None:
        """3607 s, the default of mounted tokens, would become a year in the API server."""
        pod = deployment(name)["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        [sources] = [v["projected"]["sources"] for v in pod["volumes"] if v["name"] == "account"]
        [account] = [one["serviceAccountToken"] for one in sources if "serviceAccountToken" in one]
        assert account == {"path": "token", "expirationSeconds": 3600}
        mounts = {mount["name"]: mount for mount in container(deployment(name))["volumeMounts"]}
        assert Path(mounts["account"]["mountPath"]) == SERVICE_ACCOUNT

    @pytest.mark.parametrize("name", ["cluster-wide", "namespaces", "mpp"])
    def test_have_components_that_follow_their_namespace(self, name: str, tmp_path: Path) -> None:
        both = "components: [MANIFESTS/components/monitoring, MANIFESTS/components/alerts]"
        objects = self.extended(tmp_path, name, both)
        found = of_kind(objects, "ServiceMonitor", "PrometheusRule", "NetworkPolicy")
        dashboards = [
            one for one in of_kind(objects, "ConfigMap") if "dashboard" in one["metadata"]["name"]
        ]
        assert len([*found, *dashboards]) == 5
        home = deployment(name)["metadata"]["namespace"]
        assert {one["metadata"]["namespace"] for one in (*found, *dashboards)} == {home}

    def test_keep_the_job_that_the_alerts_name_where_the_site_has_a_prefix(
        self, tmp_path: Path
    ) -> None:
        objects = self.extended(tmp_path, "monitoring", "namePrefix: blue-")
        service, monitor = only(objects, "Service"), only(objects, "ServiceMonitor")
        assert service["metadata"]["name"] == "blue-token-reconciler"
        job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        assert f'{{job="{job}"}}' in str(only(objects, "PrometheusRule"))

    def test_take_a_static_token_as_the_guide_shows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [patch] = blocks("yaml", under="Which overlay")
        pod = only(self.extended(tmp_path, "cluster-wide", patch), "Deployment")
        [volume] = [
            one
            for one in pod["spec"]["template"]["spec"]["volumes"]
            if one["name"] == "credentials"
        ]
        assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
        for name in [name for name in os.environ if name.startswith(("OIDC_", "AMBIENT_"))]:
            monkeypatch.delenv(name)
        [mount] = [one for one in container(pod)["volumeMounts"] if one["name"] == "credentials"]
        for variable in container(pod)["env"]:
            value = variable.get("value", "from-the-downward-api")
            folder = value.replace(mount["mountPath"], str(tmp_path))
            monkeypatch.setenv(variable["name"], folder)
        settings = load_settings()
        assert not settings.is_oidc
        assert settings.api_token_file == tmp_path / "token"

    def extended(self, folder: Path, name: str, more: str) -> list[Object]:
        """Render an overlay with additional content; `MANIFESTS` is replaced by their folder."""
        manifests = os.path.relpath(MANIFESTS, folder.resolve())
        (folder / "kustomization.yaml").write_text(
            f"resources: [{manifests}/overlays/{name}]\n{more.replace('MANIFESTS', manifests)}\n"
        )
        return render(folder)

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_set_variables_that_a_setting_reads(self, name: str) -> None:
        known = {
            field.validation_alias or f"RECONCILER_{key.upper()}"
            for key, field in Settings.model_fields.items()
        }
        objects = overlay(name)
        given = set(settings_of(objects)) | {
            variable["name"] for variable in container(only(objects, "Deployment"))["env"]
        }
        assert given <= known

    @pytest.mark.parametrize("name", OVERLAYS)
    def test_hold_no_secret_value(self, name: str) -> None:
        objects = overlay(name)
        assert not of_kind(objects, "Secret")
        assert not [key for key in settings_of(objects) if "OIDC_CLIENT" in key]

    def test_run_the_version_that_this_tree_is(self) -> None:
        assert container(deployment("cluster-wide"))["image"] == (
            f"runner-token-reconciler:{__version__}"
        )
