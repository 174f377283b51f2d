"""Objects, pages and events in one line each."""

from reconciler.kube.api import Event, EventType, Meta, Page


def meta(
    name: str = "a",
    version: int | str = 1,
    *,
    namespace: str = "ns",
    uid: str = "",
    session: str | None = None,
) -> Meta:
    return Meta(
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{name}",
        version=str(version),
        session_id=f"s-{name}" if session is None else session,
        project_id="p",
        created_s=0.0,
        deleting=False,
        annotations={},
        writers=(),
    )


def page(
    version: int | str, *items: Meta, continue_token: str = "", skipped: int = 0
) -> Page[Meta]:
    return Page(list(items), str(version), continue_token, skipped)


def event(kind: EventType, item: Meta) -> Event[Meta]:
    return Event(kind, item.version, item)


def added(name: str, version: int | str) -> Event[Meta]:
    return event("ADDED", meta(name, version))


def bookmark(version: int | str) -> Event[Meta]:
    return Event("BOOKMARK", str(version), None)


def skipped(version: int | str) -> Event[Meta]:
    return Event("SKIPPED", str(version), None)
