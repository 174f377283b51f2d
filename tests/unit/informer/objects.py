"""Objects, pages and events in one line each."""

from reconciler.clock import EpochTime
from reconciler.kube.api import Event, EventType, ObjectMeta, Page
from reconciler.naming import NO_ANNOTATIONS


def meta(
    name: str = "a",
    version: int | str = 1,
    *,
    namespace: str = "ns",
    uid: str = "",
    session: str | None = None,
) -> ObjectMeta:
    return ObjectMeta(
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{name}",
        version=str(version),
        session_id=f"s-{name}" if session is None else session,
        project_id="p",
        created_s=EpochTime(0),
        is_deleting=False,
        annotations=NO_ANNOTATIONS,
        field_managers=(),
    )


def page(
    version: int | str, *items: ObjectMeta, continue_token: str = "", skipped: int = 0
) -> Page[ObjectMeta]:
    return Page(list(items), str(version), continue_token, skipped)


def event(kind: EventType, item: ObjectMeta) -> Event[ObjectMeta]:
    return Event(kind, item.version, item)


def added(name: str, version: int | str) -> Event[ObjectMeta]:
    return event("ADDED", meta(name, version))


def bookmark(version: int | str) -> Event[ObjectMeta]:
    return Event("BOOKMARK", str(version), None)


def skipped(version: int | str) -> Event[ObjectMeta]:
    return Event("SKIPPED", str(version), None)
