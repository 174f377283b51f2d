"""Which programs the tests need, and how each is built and asked for its version."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

KUBERNETES = "v1.37.2"
OLDEST_KUBERNETES = "v1.30.14"
ETCD = "v3.7.3"
JAEGER = "v1.76.0"
KUBE_ROUTER = "v2.1.0"
HYDRA = "v2.3.0"
HELM = "v4.3.2"
KREW = "v0.4.3"
CONTROLLER_RUNTIME = "v0.25.2"
GRPC_GO = "v1.83.2"
GRAFANA_SDK = "v0.0.22"

_HERE = Path(__file__).parent
PEER_MODULE = _HERE.parent / "bench" / "peers" / "go"
"""A Go operator of ours, which `make bench` compares the product with."""
RUNNER_MODULE = _HERE.parent / "runners" / "go"
"""The example in Go of docs/runners.md."""
SCHEMA_MODULE = _HERE.parent / "alerts" / "schema"
"""A program of ours that compares a dashboard with Grafana's published schema."""


@dataclass(frozen=True, slots=True)
class Program:
    """One binary.

    Args:
        name: File name, in every folder we look in.
        version: The pinned version, with its "v".
        module: Folder of the Go module that pins it.
        package: Go package of its main function.
        stamp: Linker settings that tell the binary its version.
        ask: Arguments that make it print its version and exit 0.
        any_on_path: True if whatever PATH offers is good enough.
        is_pinned: True if no other version will do, not even one that the user named.
        tags: Build tags.
        cgo: True if it holds C code, so that a C compiler is needed.
    """

    name: str
    version: str
    module: Path
    package: str
    stamp: tuple[str, ...] = ()
    ask: tuple[str, ...] = ("--version",)
    any_on_path: bool = False
    is_pinned: bool = False
    tags: tuple[str, ...] = ()
    cgo: bool = False

    def says(self, output: str) -> bool:
        """Return whether `output` of `ask` names the pinned version (etcd prints it bare)."""
        return self.version.removeprefix("v") in output

    @property
    def ldflags(self) -> str:
        """Strip symbols, then stamp; without the stamp Kubernetes calls itself v0.0.0."""
        return " ".join(("-s -w", *(f"-X {setting}" for setting in self.stamp)))


def _stamp(*packages: str, version: str = KUBERNETES) -> tuple[str, ...]:
    """Source: kubernetes hack/lib/version.sh."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return tuple(
        f"{package}.{name}={value}" for package in packages for name, value in values.items()
    )


def _kubernetes(
    name: str, *, ask: tuple[str, ...] = ("--version",), any_on_path: bool = False
) -> Program:
    return Program(
        name=name,
        version=KUBERNETES,
        module=_HERE / "kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        stamp=_stamp("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
        ask=ask,
        any_on_path=any_on_path,
    )


def _own_version(library: str, module: Path) -> str:
    """Return a version that changes with our source, so that the cache never has an older build."""
    sources = [*sorted(module.glob("*.go")), module / "go.mod", module / "go.sum"]
    source = b"".join(path.read_bytes() for path in sources)
    return f"{library}-{sha256(source).hexdigest()[:8]}"


_PEER = _own_version(CONTROLLER_RUNTIME, PEER_MODULE)
_RUNNER = _own_version(GRPC_GO, RUNNER_MODULE)
_SCHEMA = _own_version(GRAFANA_SDK, SCHEMA_MODULE)

RUNNER_PROGRAM = Program(
    "runner-example", _RUNNER, RUNNER_MODULE, ".", stamp=(f"main.version={_RUNNER}",)
)

PROGRAMS = (
    # The shortest build first: a wrong set-up of Go shows within seconds.
    Program("etcd", ETCD, _HERE / "etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    # kubectl speaks to servers some versions apart; the tests use nothing new in it.
    _kubernetes("kubectl", ask=("version", "--client"), any_on_path=True),
    Program(
        "jaeger",
        JAEGER,
        _HERE / "jaeger",
        "github.com/jaegertracing/jaeger/cmd/jaeger",
        stamp=(f"github.com/jaegertracing/jaeger/internal/version.latestVersion={JAEGER}",),
        ask=("version",),
    ),
    Program(
        "helm",
        HELM,
        _HERE / "helm",
        "helm.sh/helm/v4/cmd/helm",
        stamp=(f"helm.sh/helm/v4/internal/version.version={HELM}",),
        ask=("version",),
    ),
    Program(
        "krew",
        KREW,
        _HERE / "krew",
        "sigs.k8s.io/krew/cmd/krew",
        stamp=(f"sigs.k8s.io/krew/internal/version.gitTag={KREW}",),
        ask=("version",),
    ),
    Program("peer-operator", _PEER, PEER_MODULE, ".", stamp=(f"main.version={_PEER}",)),
    RUNNER_PROGRAM,
    Program("dashboard-schema", _SCHEMA, SCHEMA_MODULE, ".", stamp=(f"main.version={_SCHEMA}",)),
)

OLDEST_APISERVER = Program(
    "kube-apiserver",
    OLDEST_KUBERNETES,
    _HERE / "kubernetes-oldest",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    stamp=_stamp(
        "k8s.io/component-base/version", "k8s.io/client-go/pkg/version", version=OLDEST_KUBERNETES
    ),
    is_pinned=True,
)
"""The oldest API server that is supported; docs/support.md names its version."""

NODE_PROGRAMS = (
    *(_kubernetes(name) for name in ("kube-scheduler", "kube-controller-manager", "kubelet")),
    Program(
        "kube-router",
        KUBE_ROUTER,
        _HERE / "kube-router",
        "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
        stamp=(f"github.com/cloudnativelabs/kube-router/v2/pkg/version.Version={KUBE_ROUTER}",),
    ),
)
"""What only the node tests run, beside all of the above."""

HYDRA_PROGRAM = Program(
    "hydra",
    HYDRA,
    _HERE / "hydra",
    "github.com/ory/hydra/v2",
    stamp=(f"github.com/ory/hydra/v2/driver/config.Version={HYDRA}",),
    ask=("version",),
    tags=("sqlite",),
    cgo=True,
)
"""An issuer of the tests, which keeps its data in SQLite."""
