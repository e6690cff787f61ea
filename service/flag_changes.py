"""Flags of ads over HTTP: changed for every worker process, and looked at."""

import asyncio
import logging
from dataclasses import dataclass

from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from service.ad_flags import AdFlags, canonical, rows_of_texts
from service.checks import check_flags, check_flags_query
from service.errors import StoreError
from service.flag_stores import FLAGS, Change
from service.log_lines import Said
from service.registry import Registry
from service.schemas import AdFlagsIn, AdFlagsOut, FlagsChanged, FlagsQuery, FlagsRequest, FlagsResponse
from service.settings import Settings

log = logging.getLogger("adrank.flags")


@dataclass(frozen=True, slots=True)
class FlagDesk:
    """Takes changes of flags, and says what they are."""

    registry: Registry
    flags: AdFlags
    settings: Settings

    async def change(self, request: FlagsRequest, request_id: str) -> FlagsChanged:
        """Take all changes or none. This process honours them from now on, the others from their next look.

        InvalidRequestError for what is not allowed, StoreError for a store that fails.
        """
        index = self.registry.live.bundle.ads.index
        check_flags(request, self.settings)
        changes: dict[str, Change] = {}
        for each in request.flags:
            ad_id, change = canonical(index, each.ad_id), _change(each)
            # "7" and "07" may both be there where ids are integers: what is said last holds.
            said, on = changes.get(ad_id, Change(0, 0))
            changes[ad_id] = Change(said | change.said, on & ~change.said | change.on)
        try:
            changed = await self.flags.store.change(changes)
        except StoreError as error:
            if str(error) == "timeout":
                raise StoreError(
                    "the store did not answer in time; it is not known whether it took the flags, sending them again "
                    "is safe"
                ) from error
            raise StoreError(f"the store did not take the flags: {error}") from error
        log.info(Said("flags of ads", request_id=request_id, given=len(changes), changed=changed))
        await self.flags.refresh()
        unknown = int((rows_of_texts(index, list(changes)) < FIRST_KNOWN).sum())
        return {"request_id": request_id, "changed": changed, "unknown_ads": unknown}

    async def look(self, query: FlagsQuery, request_id: str) -> FlagsResponse:
        """The flags of the ads asked for, or of the next ones that have any, as this process knows them."""
        bundle = self.registry.live.bundle
        check_flags_query(query, self.settings)
        view = await asyncio.to_thread(self.flags.of, bundle)
        if query.ad_id:
            found = self.flags.flags_of(canonical(bundle.ads.index, each) for each in query.ad_id)
        else:
            found = await asyncio.to_thread(self.flags.listed, query.after, query.limit)
        return {
            "request_id": request_id,
            "flags": _shown(bundle.ads.index, found),
            "next_after": list(found)[-1] if not query.ad_id and len(found) == query.limit else None,
            "paused": view.counts["paused"],
            "budget_exhausted": view.counts["budget_exhausted"],
            "unknown_ads": view.unknown,
            "age_s": round(self.flags.age_s, 3),
        }


def _change(said: AdFlagsIn) -> Change:
    given = {name: value for name in FLAGS if (value := getattr(said, name)) is not None}
    return Change(sum(FLAGS[name] for name in given), sum(FLAGS[name] for name, value in given.items() if value))


def _shown(index: Vocabulary, flags: dict[str, int]) -> list[AdFlagsOut]:
    """Ids as the catalogue has them; those that it does not have as they were given."""
    rows = rows_of_texts(index, list(flags)).tolist()
    return [
        {
            "ad_id": index.value_of(row) if row >= FIRST_KNOWN else ad_id,
            "paused": bool(mask & FLAGS["paused"]),
            "budget_exhausted": bool(mask & FLAGS["budget_exhausted"]),
            "known": row >= FIRST_KNOWN,
        }
        for row, (ad_id, mask) in zip(rows, flags.items(), strict=True)
    ]
