"""Values of a context field: which column they stand in, what an id is called, and the requests of one of them."""

from dataclasses import replace

from bundle.schema import FIRST_KNOWN, UNKNOWN, FeatureSchema, FieldSpec, Kind
from bundle.vocabulary import Vocabulary
from models.data.batches import count
from models.data.prepared import PreparedData
from models.data.spec import DataError

UNKNOWN_VALUE = "unknown"
"""What stands for all values that the training split does not have."""


def context_field(data: PreparedData, name: str) -> tuple[FieldSpec, int]:
    """A categorical context field, and its column in the encoded context. DataError when there is none."""
    try:
        return require_context_field(data.schema, name), data.schema.context.columns_of(name).start
    except DataError as error:
        raise DataError(f"{data.folder}: {error}") from error


def require_context_field(schema: FeatureSchema, name: str) -> FieldSpec:
    """A categorical context field. DataError when there is none."""
    known = {each.name: each for each in schema.context.id_fields if each.kind is Kind.CATEGORICAL}
    if name not in known:
        raise DataError(f"{name!r} is no categorical context field, known: {', '.join(known) or 'none'}")
    return known[name]


def vocabulary_of(data: PreparedData, field: FieldSpec) -> Vocabulary:
    """Values of a categorical field."""
    assert field.vocabulary is not None
    return data.vocabularies[field.vocabulary]


def name_of(vocabulary: Vocabulary, i: int) -> str:
    """The value whose id is `i`, as text."""
    return str(vocabulary.value_of(i)) if i >= FIRST_KNOWN else UNKNOWN_VALUE


def restricted(data: PreparedData, name: str, value: int | str) -> PreparedData:
    """The same data, of which only the requests with this value of a context field are read.

    DataError when there is no such field or value, or no such request to train or to choose on.
    """
    field, column = context_field(data, name)
    vocabulary = vocabulary_of(data, field)
    if (i := vocabulary.id_of(value)) == UNKNOWN:
        some = ", ".join(name_of(vocabulary, each) for each in range(FIRST_KNOWN, min(vocabulary.size, 22)))
        raise DataError(f"{data.folder}: {name} has no value {value!r} in the training split, it has {some}")
    found = replace(data, only=(column, i))
    for split in ("train", "valid"):
        if not count(found, split):
            raise DataError(f"{data.folder}: split {split!r} has no request with {name} {value!r}")
    return found
