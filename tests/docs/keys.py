"""Tables of configuration keys against the models they describe."""

from enum import Enum

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tests.docs.pages import codes, table


def check(text: str, model: type[BaseModel]) -> None:
    """The table under `<!-- keys MODEL -->` has each key of `model` once, in its order, with its default."""
    rows = table(text, f"keys {model.__name__}")
    assert [codes(row[0]) for row in rows] == [[name] for name in model.model_fields]
    for (_, default, meaning), (name, field) in zip(rows, model.model_fields.items(), strict=True):
        assert default == shown(field.get_default(call_default_factory=True)), f"{model.__name__}.{name}: {default}"
        assert len(meaning) > 2, f"{model.__name__}.{name} has no meaning"


def shown(value: object) -> str:
    """A default as the tables write it."""
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return "none"
    if isinstance(value, bool | Enum):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]" if isinstance(value[0], int) else ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
