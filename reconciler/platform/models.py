"""The fields of the platform's JSON that we read: four of a session, one of a project, two of a
list.

All other fields are ignored, so that a newer platform may add some.
"""

import codecs
import sys
from functools import cache, lru_cache
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from reconciler.errors import ProtocolError

RUNNING = "Running"
"""The phase of a session after the platform's control plane has made its objects."""

_ROW_CONFIG = ConfigDict(extra="ignore")
_CONFIG = ConfigDict(frozen=True, extra="ignore")


def _null_is_absent(value: Any) -> Any:
    return "" if value is None else value


_Text = Annotated[str, BeforeValidator(_null_is_absent)]


# A hundred thousand rows are held during a list: with slots a row has 150 bytes, as a model 740.
@dataclass(config=_ROW_CONFIG, frozen=True, slots=True, kw_only=True)
class PlatformRow:
    """The field that every item of a list has; an item without it has no identity."""

    id: str = Field(min_length=1)


@dataclass(config=_ROW_CONFIG, frozen=True, slots=True, kw_only=True)
class PlatformSession(PlatformRow):
    """A session as the platform sends it; an absent field is ""."""

    project_id: _Text = ""
    phase: _Text = ""
    kube_namespace: _Text = ""


@dataclass(config=_ROW_CONFIG, frozen=True, slots=True, kw_only=True)
class PlatformProject(PlatformRow):
    """A project; its ID is its name.

    Source: the platform's API server, `plugins/projects/model.go`.
    """

    @model_validator(mode="before")
    @classmethod
    def _name_stands_for_id(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("id"):
            return {**data, "id": data.get("name")}
        return data


T = TypeVar("T", bound=PlatformRow)


def _none_if_unreadable(value: Any, decode: ValidatorFunctionWrapHandler) -> Any:
    try:
        return decode(value)
    except ValidationError:
        return None


def _null_is_empty(value: Any) -> Any:
    return [] if value is None else value


class PlatformPage(BaseModel, Generic[T]):
    """One page of a list. `total` counts the rows that match on the server, over all pages.

    The envelope's `page` and `size` are not read: `size` is the number of items sent, not of those
    requested, so that a rule based on it would end a list too early.
    """

    model_config = _CONFIG

    total: int = Field(ge=0)
    items: Annotated[
        list[Annotated[T | None, WrapValidator(_none_if_unreadable)]],
        BeforeValidator(_null_is_empty),
    ]
    """None is an item that cannot be read, such as one without an ID."""

    @property
    def readable(self) -> list[T]:
        return [item for item in self.items if item is not None]

    @property
    def skipped(self) -> int:
        return len(self.items) - len(self.readable)


M = TypeVar("M")

VALUE_BYTES = 1024
"""Longest value that becomes a Python object, in bytes of its JSON; an ID is shorter. Prompts,
which may have megabytes, are in fields that are not read, and are skipped without a copy."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_FIELDS = ("id", "name", "project_id", "phase", "kube_namespace", "kind", "code", "total")
"""All fields that the models read, except `items`."""

_ITEM: "msgspec.json.Decoder[Any]" = msgspec.json.Decoder(
    msgspec.defstruct(
        "Item", [(name, msgspec.Raw, msgspec.field(default=msgspec.Raw(b""))) for name in _FIELDS]
    )
)
_LIST: "msgspec.json.Decoder[Any]" = msgspec.json.Decoder(
    msgspec.defstruct(
        "List",
        [
            (name, msgspec.Raw, msgspec.field(default=msgspec.Raw(b"")))
            for name in (*_FIELDS, "items")
        ],
    )
)
_ROWS = msgspec.json.Decoder(list[msgspec.Raw] | None)


def _read_fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object, and of each of its `items`, that the models read."""
    found = _LIST.decode(body)
    kept = _values(found)
    if found.items:
        rows = _ROWS.decode(found.items)
        kept["items"] = None if rows is None else [_row(row) for row in rows]
    return kept


def _row(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        return _values(_ITEM.decode(raw))
    except msgspec.ValidationError:  # no object
        return None


def _values(found: Any) -> dict[str, Any]:
    # `astuple` reads all fields in one call: a list has a row of each session.
    raws = msgspec.structs.astuple(found)
    return {name: _value(raw) for name, raw in zip(_FIELDS, raws, strict=False) if raw}


def _value(raw: msgspec.Raw) -> Any:
    """Return a value; a value that is too long becomes one that the models refuse as text."""
    view = memoryview(raw)
    if len(view) > VALUE_BYTES:
        return _TOO_LONG
    value = msgspec.json.decode(view)
    # Projects and phases repeat in each row, IDs in each list and in the labels of two objects.
    return sys.intern(value) if isinstance(value, str) else value


_TOO_LONG: tuple[()] = ()


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def decode(model: type[M], body: bytes) -> M:
    """Validate JSON bytes; a byte order mark before them is skipped (RFC 8259 8.1 allows that).

    Raises:
        ProtocolError: Not JSON, or not this shape. It holds nothing of the body: pydantic's own
            error quotes its input, so it is not even kept as the context.
    """
    try:
        fields = _read_fields(body.removeprefix(codecs.BOM_UTF8))
        content: M = _adapter(model).validate_python(fields)  # type: ignore[arg-type]  # a class is hashable
        return content
    except (ValidationError, *_UNREADABLE):
        pass
    raise ProtocolError(f"{len(body)} bytes are no {model.__name__}")


Mode = Literal["standard", "mpp"]

MPP_PREFIX = "ambient-code--"
NO_NAMESPACE = "default"


@lru_cache(maxsize=4096)
def project_namespace(project: str, mode: Mode) -> str:
    """Return the namespace of a project's sessions; one string for all of them.

    Source: the platform's control plane, `namespace_provisioner.go`.
    """
    name = project.lower()
    return MPP_PREFIX + name if mode == "mpp" else name


def namespace_of(session: PlatformSession, mode: Mode) -> str:
    """Return the namespace of a session's Secret and pod.

    Source: the platform's control plane, `kube_reconciler.go`: a project wins over the recorded
    namespace, which is the one at the time when the pod was made.
    """
    if session.project_id:
        return project_namespace(session.project_id, mode)
    return session.kube_namespace or NO_NAMESPACE
