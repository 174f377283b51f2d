"""The contexts of a kubeconfig: their names, and each one's namespace."""

from dataclasses import dataclass

from reconciler.errors import SettingsError
from reconciler.kube.auth.credentials import SERVICE_ACCOUNT, kubeconfig_path
from reconciler.kube.auth.kubeconfig import any_file, problem_of, read_files
from reconciler.kube.auth.kubeconfig_fields import is_text

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Context:
    """A context's name ("" in a pod) and its namespace."""

    name: str
    namespace: str


def read_context(kubeconfig: str, context: str | None) -> Context:
    """Return the named context, or the current one; in a pod, its own namespace.

    Args:
        kubeconfig: As KUBECONFIG holds it; "" = ~/.kube/config, then the pod's files.

    Raises:
        SettingsError: There is no such file or context, or no configuration of a cluster at all.
    """
    path = kubeconfig_path(kubeconfig)
    if not path:
        return _in_pod(context)
    current, found = _contexts(path)
    name = context or current
    if not name:
        raise SettingsError(f"KUBECONFIG {path}: it has no current context; name one by --context")
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SettingsError(f"KUBECONFIG {path}: it has no context {name!r}; there is: {known}")
    return Context(name, found[name] or DEFAULT_NAMESPACE)


def context_names(kubeconfig: str) -> list[str]:
    """Return the names of all contexts; raises `SettingsError` for an unreadable file."""
    path = kubeconfig_path(kubeconfig)
    return sorted(_contexts(path)[1]) if path else []


def _contexts(path: str) -> tuple[str, dict[str, str]]:
    """Return the current context's name, and the namespace of each by name."""
    if not any_file(path):
        raise SettingsError(f"KUBECONFIG {path}: no such file")
    try:
        merged = read_files(path)
    except Exception as error:  # a malformed file may make YAML's parser raise any exception
        problem = problem_of(error)
    else:
        namespaces = {
            entry["name"]: entry["context"].get("namespace") or "" for entry in merged["contexts"]
        }
        if all(map(is_text, namespaces.values())):
            return merged.get("current-context", ""), namespaces
        problem = "not a readable kubeconfig (a namespace is no text)"
    raise SettingsError(f"KUBECONFIG {path}: {problem}")


def _in_pod(context: str | None) -> Context:
    if context:
        raise SettingsError(f"no context {context!r}: there is no kubeconfig")
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        problem = "no kubeconfig: set KUBECONFIG, name one by --kubeconfig, or run in a pod"
    else:
        return Context("", namespace or DEFAULT_NAMESPACE)
    raise SettingsError(problem)
