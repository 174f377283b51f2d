"""Decodes the API server's bytes to metadata-only objects; no other field becomes a Python object.

The decoder itself skips annotations that are not ours: kubectl's last-applied copy of a Secret
holds its values, which must not become Python objects even for a moment.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from sys import intern
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from reconciler.clock import EPOCH, EpochTime, parse_utc
from reconciler.errors import ProtocolError
from reconciler.kube.api import ApiResource, Event, ObjectMeta, Page
from reconciler.kube.status_errors import Status, from_status
from reconciler.naming import NO_ANNOTATIONS, Annotations, Names

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All errors that a decoder raises for bytes that are wrong, nested too deep, or cut off."""

VALUE_CHARS = 300
"""Longest value of an annotation of ours that is kept, in characters; values that we write are
shorter. A tenant may write 256 KiB into each of thousands of objects: a longer value is kept as a
digest."""

JSON_BYTES = 12
"""Most bytes of one character in JSON: a pair of surrogates, each as an escape."""

_Name = Annotated[str, msgspec.Meta(min_length=1)]
"""A required string: without it an object has no identity, or a watch cannot resume."""


class _ListMeta(msgspec.Struct):
    version: _Name = msgspec.field(name="resourceVersion")
    continue_token: str = msgspec.field(name="continue", default="")


class _RawList(msgspec.Struct):
    """A list has `items`, even if empty; another answer taken for one would delete all objects."""

    metadata: _ListMeta
    items: list[msgspec.Raw] | None


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Leaf(msgspec.Struct, gc=False):
    """`{}` in a fieldsV1 set; only its presence matters."""


class _ObjectMeta(msgspec.Struct):
    version: _Name = msgspec.field(name="resourceVersion")


class _Versioned(msgspec.Struct):
    metadata: _ObjectMeta


_LIST = msgspec.json.Decoder(_RawList)
_EVENT = msgspec.json.Decoder(_RawEvent)
_VERSION = msgspec.json.Decoder(_Versioned)
_STATUS = msgspec.json.Decoder(Status)
_VALUE: "msgspec.json.Decoder[str | None]" = msgspec.json.Decoder(str | None)
_SHORT = Annotated[str, msgspec.Meta(max_length=VALUE_CHARS)] | None
_NULL = msgspec.Raw(b"null")
_QUOTE = ord('"')


def metadata_resource(
    plural: str, names: Names, *, on_data: Callable[[], None] = lambda: None
) -> ApiResource[ObjectMeta]:
    """Describe core/v1 pods or Secrets as metadata only.

    Args:
        on_data: Called for each object that came with its data, although only metadata was
            requested. The data is not decoded.

    The fast path decodes pages, events and single objects in one pass. What it refuses, such as
    one long annotation, goes through the slow path of `resource`, which keeps the objects that can
    be read, and of a long annotation its digest.

    Cost: 4.1 us for a Secret of 1.5 KB, in an answer or an event (10 and 15 on the slow path).
    """
    struct_type, build = _meta_struct(names, on_data, _SHORT, None, _shared)
    raw_struct, build_raw = _meta_struct(names, on_data, msgspec.Raw, _NULL, _digested)
    decode_raw = _meta_decoder(raw_struct, build_raw)
    fast = msgspec.json.Decoder(struct_type)

    def decode(data: bytes) -> ObjectMeta:
        try:
            return build(fast.decode(data))
        except UNREADABLE:
            pass
        return decode_raw(data)

    slow = resource(plural, group="", version="v1", partial=True, decode=decode)
    fast_page = msgspec.json.Decoder(
        msgspec.defstruct("FastList", [("metadata", _ListMeta), ("items", list[struct_type])])  # type: ignore[valid-type]  # built above
    )
    fast_event = msgspec.json.Decoder(
        msgspec.defstruct(
            "FastEvent",
            [("type", Literal["ADDED", "MODIFIED", "DELETED"]), ("object", struct_type)],
        )
    )

    def decode_page(data: bytes) -> Page[ObjectMeta]:
        try:
            listed: Any = fast_page.decode(data)
            meta, items = listed.metadata, [build(item) for item in listed.items]
            return Page(items, meta.version, meta.continue_token, 0, len(data))
        except (*UNREADABLE, ProtocolError):
            pass
        return slow.decode_page(data)

    def decode_event(line: bytes) -> Event[ObjectMeta]:
        try:
            event: Any = fast_event.decode(line)
            found = build(event.object)
            return Event(event.type, found.version, found)
        except (*UNREADABLE, ProtocolError):
            pass
        return slow.decode_event(line)

    return replace(slow, decode_page=decode_page, decode_event=decode_event)


def resource(
    plural: str, *, group: str, version: str, partial: bool, decode: Callable[[bytes], T]
) -> ApiResource[T]:
    """Describe a kind by the decoder of one object; the decoders of pages and events use it."""

    def decode_page(data: bytes) -> Page[T]:
        raw = _decoded(_LIST, data, f"a list of {plural} is not what the API server sends")
        items: list[T] = []
        skipped = 0
        for item in raw.items or ():
            try:
                items.append(decode(bytes(item)))
            except ProtocolError:
                skipped += 1
        meta = raw.metadata
        return Page(items, meta.version, meta.continue_token, skipped, len(data))

    def decode_event(line: bytes) -> Event[T]:
        problem = f"a watch line of {plural} is not a watch event"
        raw = _decoded(_EVENT, line, problem)
        data = bytes(raw.object)
        if raw.type == "ERROR":
            raise from_status(_decoded(_STATUS, data, problem), what=f"watch {plural}")
        version = _decoded(_VERSION, data, problem).metadata.version
        if raw.type == "BOOKMARK":
            return Event("BOOKMARK", version, None)
        if raw.type in ("ADDED", "MODIFIED", "DELETED"):
            try:
                return Event(raw.type, version, decode(data))  # type: ignore[arg-type]  # narrowed above
            except ProtocolError:
                pass
        return Event("SKIPPED", version, None)

    return ApiResource(plural, group, version, partial, decode, decode_page, decode_event)


def struct_decoder(struct: type[T]) -> Callable[[bytes], T]:
    """Return a decoder into `struct`; it raises `ProtocolError`."""
    decoder = msgspec.json.Decoder(struct)

    def decode(data: bytes) -> T:
        return _decoded(decoder, data, f"an object is not a readable {struct.__name__}")

    return decode


def _meta_decoder(
    struct_type: type[msgspec.Struct], build: Callable[[Any], ObjectMeta]
) -> Callable[[bytes], ObjectMeta]:
    decoder = msgspec.json.Decoder(struct_type)

    def decode(data: bytes) -> ObjectMeta:
        return build(_decoded(decoder, data, "an object has no readable metadata"))

    return decode


def _meta_struct(
    names: Names,
    on_data: Callable[[], None],
    value: Any,
    absent: Any,
    read: Callable[[tuple[Any, ...]], Iterable[str | None]],
) -> tuple[type[msgspec.Struct], Callable[[Any], ObjectMeta]]:
    """Return a struct with exactly our labels, annotations and token key, and its converter.

    Args:
        value: The type of an annotation's value; `absent` is that of one that is not there.
        read: Turns such values into those that are kept.

    The structs exist for one call only, so the garbage collector need not track them.
    """
    labels = _fields("Labels", [names.session_id, names.project_id])
    ours = names.annotations()
    annotations = _struct(
        "Annotations",
        *(
            (f"f{index}", value, msgspec.field(name=name, default=absent))
            for index, name in enumerate(ours)
        ),
    )
    data = _struct(
        "Data",
        ("token", _Leaf | None, msgspec.field(name=f"f:{names.secret_key}", default=None)),
    )
    fields_v1 = _struct(
        "FieldsV1", ("data", data | None, msgspec.field(name="f:data", default=None))
    )
    managed = _struct(
        "Managed",
        ("manager", str, ""),
        ("time", str | None, None),
        ("fields", fields_v1 | None, msgspec.field(name="fieldsV1", default=None)),
    )
    metadata = _struct(
        "Metadata",
        ("name", _Name),
        ("uid", _Name),
        ("resourceVersion", _Name),
        ("namespace", str, ""),
        ("creationTimestamp", str | None, None),
        ("deletionTimestamp", str | None, None),
        ("labels", labels | None, None),
        ("annotations", annotations | None, None),
        ("managedFields", list[managed] | None, None),  # type: ignore[valid-type]  # built above
    )
    values = msgspec.structs.astuple

    def build(partial: Any) -> ObjectMeta:
        if partial.data is not None:
            on_data()
        meta = partial.metadata
        found = meta.annotations
        label = meta.labels
        session_id, project_id = (label.f0, label.f1) if label is not None else (None, None)
        owners = [w for w in meta.managedFields or () if _owns_token(w.fields)]
        foreign_s = own_s = None
        if owners and any(w.manager != names.field_manager for w in owners):
            foreign_s = _latest_s(w for w in owners if w.manager != names.field_manager)
            own_s = _latest_s(w for w in meta.managedFields if w.manager == names.field_manager)
        # A fleet's objects share these texts; without `intern` each object has copies of its own.
        return ObjectMeta(
            intern(meta.namespace),
            meta.name,
            meta.uid,
            meta.resourceVersion,
            intern(session_id) if session_id else "",
            intern(project_id) if project_id else "",
            parse_utc(meta.creationTimestamp or "") or EPOCH,
            meta.deletionTimestamp is not None,
            Annotations(*read(values(found))) if found is not None else NO_ANNOTATIONS,
            _managers(tuple([w.manager for w in owners])) if owners else (),
            foreign_s,
            own_s,
        )

    # Of the data only its presence is decoded: no value becomes a Python object.
    return _struct("Partial", ("metadata", metadata), ("data", _Leaf | None, None)), build


def _decoded(decoder: "msgspec.json.Decoder[T]", data: bytes | memoryview, problem: str) -> T:
    """Decode, or raise `ProtocolError` without the decoder's error, which holds the bytes."""
    try:
        return decoder.decode(data)
    except UNREADABLE:
        pass
    raise ProtocolError(problem)


_SHARED = {"expires_at", "issued_at", "previous_expires_at", "refreshed_by"}
"""Annotations with the same text in many objects: a token serves many sessions."""

_IS_SHARED = tuple(field in _SHARED for field in Annotations.__struct_fields__)


def _shared(texts: tuple[str | None, ...]) -> list[str | None]:
    """Return the values of `Annotations`, with one copy of those in `_SHARED`."""
    # A call for each value would be a third of a decoded object.
    return [
        intern(text) if text and is_shared else text
        for text, is_shared in zip(texts, _IS_SHARED, strict=True)
    ]


def _digested(values: tuple[msgspec.Raw, ...]) -> list[str | None]:
    return _shared(tuple([_text(raw) for raw in values]))


def _text(raw: msgspec.Raw) -> str | None:
    """Return an annotation's value, or its digest where it is longer than `VALUE_CHARS`.

    Raises:
        ProtocolError: It is no text and not null.
    """
    view = memoryview(raw)
    if len(view) - 2 <= VALUE_CHARS * JSON_BYTES:
        text = _decoded(_VALUE, view, "an annotation is no text")
        if text is None or len(text) <= VALUE_CHARS:
            return text
    if view[0] != _QUOTE:
        raise ProtocolError("an annotation is no text")
    return f"sha256:{hashlib.sha256(view).hexdigest()}"


@lru_cache(maxsize=1024)
def _managers(managers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same tuple for equal ones: a fleet has one or two."""
    return managers


def _owns_token(fields: Any) -> bool:
    return fields is not None and fields.data is not None and fields.data.token is not None


def _latest_s(entries: Iterable[Any]) -> EpochTime | None:
    """Return the latest time of these entries, epoch seconds; None where one has no time."""
    latest_s: EpochTime | None = None
    for entry in entries:
        time_s = parse_utc(entry.time or "")
        if time_s is None:
            return None
        latest_s = time_s if latest_s is None else max(latest_s, time_s)
    return latest_s


def _struct(name: str, *fields: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, fields, gc=False)


def _fields(struct: str, names: list[str]) -> type[msgspec.Struct]:
    return _struct(
        struct,
        *(
            (f"f{index}", str | None, msgspec.field(name=name, default=None))
            for index, name in enumerate(names)
        ),
    )
