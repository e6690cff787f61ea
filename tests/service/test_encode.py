"""A request's common features: what the store knows, overridden by what the request gives."""

from dataclasses import replace

import numpy as np
import pytest

from bundle.encoding import Encoder
from bundle.folder import Bundle
from bundle.golden import Common
from bundle.record import UserRecord, pack
from bundle.schema import FieldSpec, Kind, Side
from bundle.vocabulary import Vocabulary
from service.encode import encode_common, encode_found, needs_store
from service.schemas import Given
from service.user_cache import StoredUser
from service.user_features import UserFeatures
from tests.service.world import demo_records


@pytest.fixture
def with_user_ids(bundle: Bundle) -> Bundle:
    """The test bundle, whose user side starts with the user's own id: 7 and 9 are known."""
    schema = bundle.manifest.features
    known = Vocabulary.of([7, 9])
    field = FieldSpec(name="user_id", kind=Kind.CATEGORICAL, vocabulary="user_id", size=known.size)
    user = Side(fields=(field, *schema.user.fields))
    wider = schema.model_copy(update={"user": user})
    encoder = Encoder(wider, bundle.encoder.vocabularies | {"user_id": known})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"features": wider}), encoder=encoder)


@pytest.mark.parametrize(("user_id", "expected"), [(7, 2), ("9", 3), (8, 1), ("anna", 1)])
def test_the_users_id_is_a_feature_even_of_users_without_a_record(
    with_user_ids: Bundle, user_id: int | str, expected: int
) -> None:
    assert encode_common(with_user_ids, user_id, UserRecord(), None, {}).user[0] == expected


def test_what_is_stored_goes_before_it_and_what_is_given_before_that(with_user_ids: Bundle) -> None:
    stored = UserRecord({"user_id": 9})
    assert encode_common(with_user_ids, 7, stored, None, {}).user[0] == 3
    assert encode_common(with_user_ids, 7, stored, Given(profile={"user_id": 7}), {}).user[0] == 2


def test_a_request_that_gives_all_but_the_id_needs_no_store(with_user_ids: Bundle, bundle: Bundle) -> None:
    schema = bundle.manifest.features
    everything = Given(
        profile={field.name: None for field in schema.user.fields},
        history={history.name: [] for history in schema.histories},
    )
    assert not needs_store(with_user_ids, everything)
    assert needs_store(with_user_ids, Given(profile=everything.profile))
    assert needs_store(with_user_ids, None)


def same(one: Common, other: Common) -> bool:
    """Whether all arrays are equal."""
    left, right = one.feeds(), other.feeds()
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


ANNA = demo_records()["anna"]
CONTEXT = {"scene": "feed", "hour": 12}


@pytest.fixture
def stored(bundle: Bundle) -> StoredUser:
    """Anna's record, which an earlier request has encoded."""
    made = StoredUser(pack(ANNA))
    encode_found(bundle, "anna", UserFeatures(True, stored=made, parsed=ANNA), None, CONTEXT)
    assert made.encoded is not None
    return made


def test_a_record_is_encoded_once(bundle: Bundle, stored: StoredUser) -> None:
    before = stored.encoded
    stored.packed = b"not read again"
    for given in (None, Given()):
        for context in (CONTEXT, {"scene": "story"}):
            found = encode_found(bundle, "anna", UserFeatures(True, stored=stored), given, context)
            assert same(found, encode_common(bundle, "anna", ANNA, given, context))
            assert found.histories["clicks"] is before.histories["clicks"]  # type: ignore[union-attr]
    assert stored.encoded is before


def test_no_request_changes_what_others_see(bundle: Bundle, stored: StoredUser) -> None:
    found = encode_found(bundle, "anna", UserFeatures(True, stored=stored), None, CONTEXT)
    arrays: list[np.ndarray] = [found.user, found.user_numbers, *found.histories.values()]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    found.histories.clear()
    again = encode_found(bundle, "anna", UserFeatures(True, stored=stored), None, CONTEXT)
    assert same(again, encode_common(bundle, "anna", ANNA, None, CONTEXT))


@pytest.mark.parametrize(
    "given",
    [
        Given(profile={"city": "Oslo"}),
        Given(profile={"city": None}),
        Given(history={"clicks": [1001]}),
        Given(history={"clicks": []}),
    ],
)
def test_what_a_request_gives_is_encoded_for_it_alone(bundle: Bundle, stored: StoredUser, given: Given) -> None:
    before = stored.encoded
    found = encode_found(bundle, "anna", UserFeatures(True, stored=stored), given, CONTEXT)
    assert same(found, encode_common(bundle, "anna", ANNA, given, CONTEXT))
    assert not same(found, encode_common(bundle, "anna", ANNA, None, CONTEXT))
    assert stored.encoded is before


def test_another_bundle_encodes_anew(bundle: Bundle, stored: StoredUser) -> None:
    schema = bundle.manifest.features
    shorter = schema.model_copy(
        update={"histories": (schema.histories[0].model_copy(update={"max_length": 2}), *schema.histories[1:])}
    )
    manifest = bundle.manifest.model_copy(update={"features": shorter, "bundle_id": "other"})
    other = replace(bundle, manifest=manifest, encoder=Encoder(shorter, bundle.encoder.vocabularies))
    for each, clicks in ((other, 2), (bundle, 4), (other, 2)):
        found = encode_found(each, "anna", UserFeatures(True, stored=stored), None, CONTEXT)
        assert len(found.histories["clicks"]) == clicks


def test_an_id_that_is_written_otherwise_is_encoded_anew(with_user_ids: Bundle) -> None:
    stored = StoredUser(pack(UserRecord()))
    for user_id in (7, "7", 7):
        found = encode_found(with_user_ids, user_id, UserFeatures(True, stored=stored), None, {})
        assert found.user[0] == 2
        assert stored.encoded is not None
        assert stored.encoded.user_id == user_id


def test_users_without_a_record_share_nothing(with_user_ids: Bundle) -> None:
    for user_id, expected in ((7, 2), (9, 3), (8, 1)):
        assert encode_found(with_user_ids, user_id, UserFeatures(), None, {}).user[0] == expected
