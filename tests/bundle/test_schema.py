import pytest
from pydantic import ValidationError

from bundle.schema import FeatureSchema, FieldSpec, HistorySpec, Kind, Side

CATEGORY = FieldSpec(name="category", kind=Kind.CATEGORICAL, vocabulary="category", size=12)
TAGS = FieldSpec(name="tags", kind=Kind.MULTIVALUED, vocabulary="tag", size=9, width=3)
PRICE = FieldSpec(name="price", kind=Kind.NUMBER, mean=2.0, std=1.5)
AGE = FieldSpec(name="age", kind=Kind.BUCKETED, edges=(18.0, 30.0), size=5)


def test_columns_follow_the_order_of_id_fields() -> None:
    side = Side(fields=(CATEGORY, PRICE, TAGS, AGE))
    assert (side.id_columns, side.number_columns) == (5, 1)
    assert [(field.name, columns) for field, columns in side.slices()] == [
        ("category", slice(0, 1)),
        ("tags", slice(1, 4)),
        ("age", slice(4, 5)),
    ]
    assert side.columns_of("tags") == slice(1, 4)
    with pytest.raises(KeyError, match="price"):
        side.columns_of("price")


def test_history_columns_are_those_of_its_fields_in_the_ad_row() -> None:
    history = HistorySpec(name="clicks", fields=("age", "tags"), max_length=10)
    schema = FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, TAGS, AGE)), histories=(history,))
    assert schema.history_columns(history) == [4, 1, 2, 3]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"name": "f", "kind": "categorical", "size": 3}, "'f' is categorical and names no vocabulary"),
        ({"name": "f", "kind": "categorical", "vocabulary": "v", "size": 1}, "has size 1, at least 2 is needed"),
        ({"name": "f", "kind": "categorical", "vocabulary": "v", "size": 3, "width": 2}, "has width 2, only 1"),
        ({"name": "f", "kind": "multivalued", "vocabulary": "v", "size": 3, "width": 0}, "width\n.*greater than"),
        ({"name": "f", "kind": "number", "std": 0}, r"has std 0\.0, it must be above 0"),
        ({"name": "f", "kind": "bucketed", "edges": [2, 1], "size": 5}, "edges that do not ascend"),
        ({"name": "f", "kind": "bucketed", "edges": [1, 2], "size": 4}, "size 4 and 2 edges, the size must be 5"),
        ({"name": "f", "kind": "number", "colour": 1}, "colour\n.*Extra inputs"),
    ],
)
def test_bad_fields_are_refused(field: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FieldSpec.model_validate(field)


def test_names_are_used_once() -> None:
    with pytest.raises(ValidationError, match=r"user fields are named twice: \['category'\]"):
        FeatureSchema(user_key="u", ad_key="a", user=Side(fields=(CATEGORY, CATEGORY)), ad=Side(fields=(CATEGORY,)))
    history = HistorySpec(name="clicks", fields=("category",), max_length=10)
    with pytest.raises(ValidationError, match=r"histories are named twice: \['clicks'\]"):
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY,)), histories=(history, history))


def test_a_history_has_only_id_fields_of_the_ad() -> None:
    history = HistorySpec(name="clicks", fields=("price",), max_length=10)
    with pytest.raises(ValidationError, match=r"fields that the ad side lacks: \['price'\]"):
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, PRICE)), histories=(history,))


def test_a_history_of_raw_values_has_only_categorical_fields() -> None:
    history = HistorySpec(name="views", fields=("category", "tags"), of_ads=False, max_length=10)
    with pytest.raises(ValidationError, match=r"raw values of fields not categorical: \['tags'\]"):
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, TAGS)), histories=(history,))


def test_a_schema_cannot_change_and_survives_json() -> None:
    schema = FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, TAGS, PRICE, AGE)))
    assert FeatureSchema.model_validate_json(schema.model_dump_json()) == schema
    with pytest.raises(ValidationError, match="frozen"):
        schema.user_key = "other"  # type: ignore[misc]


def test_a_history_with_a_field_twice_is_refused() -> None:
    history = HistorySpec(name="clicks", fields=("tags", "age", "tags"), max_length=10)
    with pytest.raises(ValidationError, match="history 'clicks' has a field twice"):
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, TAGS, AGE)), histories=(history,))


@pytest.mark.parametrize("name", ["", "Clicks", "my clicks", "a.b", "long-watch", "1st"])
def test_history_names_are_plain(name: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        HistorySpec(name=name, fields=("age",), max_length=10)


IMAGE = FieldSpec(name="image", kind=Kind.CATEGORICAL, vocabulary="image", size=9, vector=4)


def test_fields_with_vectors_are_encoded_and_not_embedded() -> None:
    history = HistorySpec(name="clicks", fields=("tags", "image"), max_length=10)
    schema = FeatureSchema(
        user_key="u", ad_key="a", ad=Side(fields=(CATEGORY, TAGS, PRICE, IMAGE)), histories=(history,)
    )
    assert [field.name for field in schema.ad.id_fields] == ["category", "tags", "image"]
    assert [field.name for field in schema.ad.embedded_fields] == ["category", "tags"]
    assert [field.name for field in schema.embedded_of(history)] == ["tags"]
    assert schema.history_columns(history)[-1] == schema.ad.columns_of("image").start
    assert FeatureSchema.model_validate_json(schema.model_dump_json()) == schema


def test_fields_without_vectors_do_not_mention_them() -> None:
    """Manifests and fingerprints of data without any are what they were."""
    assert "vector" not in CATEGORY.model_dump()
    assert IMAGE.model_dump()["vector"] == 4


@pytest.mark.parametrize(
    ("user", "ad", "fields", "message"),
    [
        ((), (IMAGE, CATEGORY), ("category",), "the ad: field 'image' has vectors and stands before 'category'"),
        ((), (CATEGORY, IMAGE), ("image", "category"), "history 'clicks': field 'image' has vectors and stands before"),
        ((), (CATEGORY, IMAGE), ("image",), "history 'clicks' has no field but those with vectors"),
        ((IMAGE,), (CATEGORY,), ("category",), r"only ad fields may: \['image'\]"),
    ],
)
def test_vectors_stand_last_and_only_with_ads(
    user: tuple[FieldSpec, ...], ad: tuple[FieldSpec, ...], fields: tuple[str, ...], message: str
) -> None:
    history = HistorySpec(name="clicks", fields=fields, max_length=10)
    with pytest.raises(ValidationError, match=message):
        FeatureSchema(user_key="u", ad_key="a", user=Side(fields=user), ad=Side(fields=ad), histories=(history,))


def test_only_categorical_fields_have_vectors() -> None:
    with pytest.raises(ValidationError, match="field 'f' is multivalued and has vectors, only categorical fields may"):
        FieldSpec(name="f", kind=Kind.MULTIVALUED, vocabulary="f", size=4, width=2, vector=3)
