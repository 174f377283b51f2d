"""The two controllers that every cluster needs: garbage collection and namespaces.

The owner of the core calls `collect`; there is no background task.
"""

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.deletion import DeleteOptions
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.selectors import Selection


def collect(core: Core) -> int:
    """Delete objects without an existing owner, and the objects of terminating namespaces.

    Returns:
        Number of objects that were deleted or marked; 0 if no work is left now. A pod on a node is
        only marked: its kubelet removes it.
    """
    done = 0
    while (candidate := core.owner_index.next_candidate()) is not None:
        kind, key = candidate
        item = core.peek(kind, key)
        if item is not None and core.owner_index.is_orphan(item):
            done += _sweep(core, kind, item)
    for name in sorted(core.owner_index.terminating):
        done += _empty(core, name)
    return done


def _empty(core: Core, namespace: str) -> int:
    done, left = 0, 0
    for kind in kinds.STORED:
        if kind.namespaced:
            for item in core.list(kind, Selection(namespace)).items:
                done += _sweep(core, kind, item)
            left += len(core.list(kind, Selection(namespace)).items)
    if left:
        return done
    core.finish_namespace(namespace)
    return done + 1


def _sweep(core: Core, kind: Kind, item: Object) -> int:
    metadata = item["metadata"]
    options = DeleteOptions(uid=metadata["uid"])
    deleted = core.delete(kind, metadata.get("namespace", ""), metadata["name"], options)
    return int(deleted.removed or deleted.object is not item)
