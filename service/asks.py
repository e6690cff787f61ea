"""What the cascade is asked for one rank request: its arrays, the ads that may be shown, its own candidates."""

from dataclasses import dataclass

import numpy as np

from service.cascade import Ask
from service.eligibility import Passed, allowed_by
from service.encode import encode_found, known_rows, rows_of
from service.loaded import LoadedBundle
from service.schemas import ExcludedAd, RankRequest
from service.timing import RequestTiming
from service.user_features import UserFeatures


@dataclass(frozen=True, slots=True)
class Own:
    """The own candidates that are not ranked."""

    unknown: list[int | str]
    excluded: list[ExcludedAd]


def ask_of(
    live: LoadedBundle, request: RankRequest, found: UserFeatures, k: int, flags: Passed, timing: RequestTiming
) -> tuple[Ask, Own]:
    """The arrays of a rank request, and its own candidates that are left out. `flags`: the live ones of FlagView."""
    bundle = live.bundle
    common = encode_found(bundle, request.user_id, found, request.user, request.context)
    with timing.wait("eligibility"):
        eligible = allowed_by(bundle, request.filters, request.context, flags)
    if request.candidates is None:
        note = f"{eligible.ads} of {len(bundle.ads.index)} ads eligible"
        return Ask(common, k, allowed=eligible.allowed, note=note), Own([], [])
    rows = rows_of(bundle.ads.index, request.candidates)
    known = known_rows(rows)
    unknown = [request.candidates[i] for i in np.flatnonzero(~known)]
    own, first = np.unique(rows[known], return_index=True)
    reasons = eligible.reasons(own)
    places = np.flatnonzero(known)[first]
    left_out = sorted((int(place), why) for place, why in zip(places, reasons, strict=True) if why is not None)
    excluded: list[ExcludedAd] = [{"ad_id": request.candidates[i], "reason": why} for i, why in left_out]
    repeated = int(known.sum()) - len(own)
    note = f"own candidates: {len(unknown)} unknown, {repeated} repeated, {len(excluded)} excluded"
    return Ask(common, k, own, note, len(rows), eligible.allowed), Own(unknown, excluded)
