"""What we keep of the platform's JSON: four fields of a session, one of a project, two of a list.

Everything else is ignored, so that a newer platform may add what it likes.
"""

import codecs
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from reconciler.errors import ProtocolError

RUNNING = "Running"
"""The phase in which the platform's control plane has made a session's objects."""

_CONFIG = ConfigDict(frozen=True, extra="ignore")


def _null_is_absent(value: Any) -> Any:
    return "" if value is None else value


_Text = Annotated[str, BeforeValidator(_null_is_absent)]


class PlatformRow(BaseModel):
    """What every item of a list has; one without it cannot be told from another."""

    model_config = _CONFIG

    id: str = Field(min_length=1)


class PlatformSession(PlatformRow):
    """A session as the platform tells it; an absent field is ""."""

    project_id: _Text = ""
    phase: _Text = ""
    kube_namespace: _Text = ""


class PlatformProject(PlatformRow):
    """A project; its ID is its name. Source: API/plugins/projects/model.go:30-33."""

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

    The envelope's own `page` and `size` are not read: `size` is how many items came, not how many
    were asked for, and a rule made of it ends a list early.
    """

    model_config = _CONFIG

    total: int = Field(ge=0)
    items: Annotated[
        list[Annotated[T | None, WrapValidator(_none_if_unreadable)]],
        BeforeValidator(_null_is_empty),
    ]
    """None stands for an item that we cannot read, for one without an ID."""

    @property
    def readable(self) -> list[T]:
        return [item for item in self.items if item is not None]

    @property
    def skipped(self) -> int:
        return len(self.items) - len(self.readable)


M = TypeVar("M", bound=BaseModel)

VALUE_BYTES = 1024
"""Longest value that is made a Python object, in bytes of its JSON: an ID is shorter. Prompts,
which may have megabytes, are in fields that nothing reads, and are skipped without a copy."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_FIELDS = ("id", "name", "project_id", "phase", "kube_namespace", "kind", "code", "total")
"""All fields that any of the models reads, but for `items`."""

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


def _kept(body: bytes) -> dict[str, Any]:
    """Return what the models read of a JSON object, and of each of its `items`."""
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
    raws = ((name, getattr(found, name)) for name in _FIELDS)
    return {name: _value(raw) for name, raw in raws if raw}


def _value(raw: msgspec.Raw) -> Any:
    """Return a value; one that is too long is no ID, and for the models no text either."""
    view = memoryview(raw)
    return _TOO_LONG if len(view) > VALUE_BYTES else msgspec.json.decode(view)


_TOO_LONG: tuple[()] = ()


def decode(model: type[M], body: bytes) -> M:
    """Validate JSON bytes; a byte order mark before them is skipped (RFC 8259 8.1 allows that).

    Raises:
        ProtocolError: Not JSON, or not this shape. Nothing of the body is in it: pydantic's own
        error
            quotes its input, so it is not even kept as the context.
    """
    try:
        return model.model_validate(_kept(body.removeprefix(codecs.BOM_UTF8)))
    except (ValidationError, *_UNREADABLE):
        pass
    raise ProtocolError(f"{len(body)} bytes are no {model.__name__}")


Mode = Literal["standard", "mpp"]

MPP_PREFIX = "ambient-code--"
NO_NAMESPACE = "default"


def project_namespace(project: str, mode: Mode) -> str:
    """Return the namespace of a project's sessions.

    Source: namespace_provisioner.go:33-35, 113-115.
    """
    name = project.lower()
    return MPP_PREFIX + name if mode == "mpp" else name


def namespace_of(session: PlatformSession, mode: Mode) -> str:
    """Return the namespace of a session's Secret and pod.

    Source: kube_reconciler.go:76-84: a project wins over the recorded namespace, which is only what
    was true when the pod was made.
    """
    if session.project_id:
        return project_namespace(session.project_id, mode)
    return session.kube_namespace or NO_NAMESPACE
