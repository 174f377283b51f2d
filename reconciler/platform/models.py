"""What we keep of the platform's JSON: four fields of a session, one of a project, two of a list.

Everything else is ignored, so that a newer platform may add what it likes.
"""

import codecs
from typing import Annotated, Any, Generic, TypeVar

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

from reconciler.errors import WireError

RUNNING = "Running"
"""The phase in which the platform's control plane has made a session's objects."""

_CONFIG = ConfigDict(frozen=True, extra="ignore")


def _null_is_absent(value: Any) -> Any:
    return "" if value is None else value


_Text = Annotated[str, BeforeValidator(_null_is_absent)]


class Row(BaseModel):
    """What every item of a list has; one without it cannot be told from another."""

    model_config = _CONFIG

    id: str = Field(min_length=1)


class Session(Row):
    """A session as the platform tells it; an absent field is ""."""

    project_id: _Text = ""
    phase: _Text = ""
    kube_namespace: _Text = ""


class Project(Row):
    """A project; its ID is its name. Source: API/plugins/projects/model.go:30-33."""

    @model_validator(mode="before")
    @classmethod
    def _name_stands_for_id(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("id"):
            return {**data, "id": data.get("name")}
        return data


T = TypeVar("T", bound=Row)


def _none_if_unreadable(value: Any, decode: ValidatorFunctionWrapHandler) -> Any:
    try:
        return decode(value)
    except ValidationError:
        return None


def _null_is_empty(value: Any) -> Any:
    return [] if value is None else value


class Page(BaseModel, Generic[T]):
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


def decode(model: type[M], body: bytes) -> M:
    """Validate JSON bytes; a byte order mark before them is skipped (RFC 8259 8.1 allows that).

    Raises:
        WireError: Not JSON, or not this shape. Nothing of the body is in it: pydantic's own error
            quotes its input, so it is not even kept as the context.
    """
    try:
        return model.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
    except ValidationError:
        pass
    raise WireError(f"{len(body)} bytes are no {model.__name__}")
