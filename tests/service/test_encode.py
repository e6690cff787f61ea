"""A request's common features: what the store knows, overridden by what the request gives."""

from dataclasses import replace

import pytest

from bundle.encoding import Encoder
from bundle.folder import Bundle
from bundle.record import UserRecord
from bundle.schema import FieldSpec, Kind, Side
from bundle.vocabulary import Vocabulary
from service.encode import encode_common, needs_store
from service.schemas import Given


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
