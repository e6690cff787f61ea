"""A request's raw features as arrays: what the store knows, overridden by what the request gives.

The user's side is made once for each record and bundle, and kept with the record (service/user_cache.py): unpacking and
encoding 50 events take 0.06 ms.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.folder import Bundle
from bundle.golden import Common
from bundle.record import Event, UserRecord, encode_history
from bundle.schema import UNKNOWN
from bundle.vocabulary import Vocabulary
from service.schemas import Given
from service.selection import Rows
from service.user_cache import EncodedUser
from service.user_features import UserFeatures


def encode_common(
    bundle: Bundle, user_id: int | str, record: UserRecord, given: Given | None, context: dict[str, Any]
) -> Common:
    """Everything the request's candidates share."""
    return _with_context(bundle, encode_user(bundle, user_id, record, given), context)


def encode_found(
    bundle: Bundle, user_id: int | str, found: UserFeatures, given: Given | None, context: dict[str, Any]
) -> Common:
    """The same for what the store gave. Arrays that an earlier request made of the record are used again, unless this
    one gives features of its own."""
    stored = found.stored if given is None or not (given.profile or given.history) else None
    user = None if stored is None else stored.encoded
    if user is None or user.bundle_id != bundle.id or user.user_id != user_id:
        user = encode_user(bundle, user_id, found.record, given)
        if stored is not None:
            stored.encoded = user
    return _with_context(bundle, user, context)


def encode_user(bundle: Bundle, user_id: int | str, record: UserRecord, given: Given | None) -> EncodedUser:
    """The user's side, read-only. The user's id is a feature of its own where the schema has it, also for users of whom
    nothing else is stored."""
    encoder, schema = bundle.encoder, bundle.manifest.features
    profile = {schema.user_key: user_id, **record.profile}
    if given is not None:
        profile |= given.profile
    user, user_numbers = encoder.encode_one(schema.user, profile)
    histories = {}
    for history in schema.histories:
        events: Sequence[Event] = record.events
        if given is not None and history.name in given.history:
            kind = history.events[0]
            behaviours = given.history[history.name]
            events = [Event(kind, 0, tuple(b) if isinstance(b, list) else (b,)) for b in behaviours]
        histories[history.name] = encode_history(encoder, history, events, bundle.ads.index, bundle.ads.fields)
    arrays: tuple[npt.NDArray[Any], ...] = (user, user_numbers, *histories.values())
    for array in arrays:
        array.setflags(write=False)  # later requests see the same arrays
    return EncodedUser(bundle.id, user_id, user, user_numbers, histories)


def _with_context(bundle: Bundle, user: EncodedUser, context: dict[str, Any]) -> Common:
    ids, numbers = bundle.encoder.encode_one(bundle.manifest.features.context, context)
    return Common(user.user, user.user_numbers, ids, numbers, dict(user.histories))


def rows_of(index: Vocabulary, ids: Sequence[int | str]) -> Rows:
    """Catalogue rows int64[n] of ad ids, row 1 for unknown ones.

    They are looked up together: 500 of 1e6 ads take 0.1 ms, one by one 1.5 ms.
    """
    return index.ids_of_list(ids).astype(np.int64)


def known_rows(rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of them are ads of the catalogue."""
    return rows > UNKNOWN


def needs_store(bundle: Bundle, given: Given | None) -> bool:
    """Whether the request leaves anything to be read about its user."""
    if given is None:
        return True
    schema = bundle.manifest.features
    profile = all(f.name in given.profile for f in schema.user.fields if f.name != schema.user_key)
    return not (profile and all(history.name in given.history for history in schema.histories))
