"""The flags of ads in Redis, followed by every worker process.

    PREFIXstate     hash: ad id -> its flags; an ad without flags has no entry
    PREFIXchanges   sorted set: the ads that changed last, by the version of their change; at most KEPT of them
    PREFIXmeta      hash: epoch (drawn when the first flag is set), version (of the last change), floor (of the last
                    change that `changes` has forgotten)

A follower asks for the changes since the version it knows. It reads the whole state, in pieces, only when it is new,
fell behind the floor, or met another epoch or an older version: Redis was emptied, or lost its last writes. A script
looks at all that can fail before it writes.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.errors import StoreError
from service.flag_stores import Change, Mark, News, too_many

KEPT = 100_000
"""Changes remembered: a worker that was cut off for longer reads all flags again."""
PAGE = 1000
"""Changes in one answer, which takes Redis about a millisecond; all others wait for it."""
SCAN = 1000
"""Entries of the state in one answer, about."""
ATTEMPTS = 3

CHANGE = """
local state, changes, meta = KEYS[1], KEYS[2], KEYS[3]
local most, kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local size, version = redis.call('HLEN', state), tonumber(redis.call('HGET', meta, 'version') or '0')
redis.call('ZCARD', changes)
local changed, grown = {}, size
for i = 4, #ARGV, 3 do
  local before = tonumber(redis.call('HGET', state, ARGV[i]) or '0')
  local after = bit.bor(bit.band(before, bit.bnot(tonumber(ARGV[i + 1]))), tonumber(ARGV[i + 2]))
  if after ~= before then
    changed[#changed + 1] = {ARGV[i], after}
    if before == 0 then grown = grown + 1 elseif after == 0 then grown = grown - 1 end
  end
end
if grown > size and grown > most then return {-1, size} end
if #changed == 0 then return {0, size} end
if redis.call('HSETNX', meta, 'epoch', ARGV[3]) == 1 then redis.call('DEL', changes) end
for _, each in ipairs(changed) do
  version = version + 1
  if each[2] == 0 then redis.call('HDEL', state, each[1]) else redis.call('HSET', state, each[1], each[2]) end
  redis.call('ZADD', changes, version, each[1])
end
redis.call('HSET', meta, 'version', version)
local over = redis.call('ZCARD', changes) - kept
if over > 0 then
  redis.call('HSET', meta, 'floor', redis.call('ZRANGE', changes, over - 1, over - 1, 'WITHSCORES')[2])
  redis.call('ZREMRANGEBYRANK', changes, 0, over - 1)
end
return {#changed, grown}
"""
NEWS = """
local state, changes, meta = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', meta, 'epoch', 'version', 'floor')
local epoch, version, floor = known[1] or '', known[2] or '0', known[3] or '0'
local size = redis.call('HLEN', state)
local since = tonumber(ARGV[2])
if epoch ~= ARGV[1] or since < tonumber(floor) or since > tonumber(version) then
  return {epoch, version, size, 1, {}, {}}
end
local found = redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local ads = {}
for i = 1, #found, 2 do ads[#ads + 1] = found[i] end
if #ads == tonumber(ARGV[3]) then version = found[#found] end
local flags = {}
if #ads > 0 then flags = redis.call('HMGET', state, unpack(ads)) end
return {epoch, version, size, 0, ads, flags}
"""
STATE = "return redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])"


class Scripts(Protocol):
    """What runs a script in Redis: RedisStore."""

    async def script(self, text: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """The script's answer. StoreError when Redis fails."""


class RedisFlags:
    """A FlagStore in Redis."""

    def __init__(self, redis: Scripts, prefix: str, most: int, kept: int = KEPT) -> None:
        """`most`: ads that may have flags. `kept`: changes remembered for followers."""
        self._redis = redis
        self._keys = [f"{prefix}{name}" for name in ("state", "changes", "meta")]
        self._most, self._kept = most, kept

    async def change(self, changes: Mapping[str, Change]) -> int:
        """See FlagStore. One round trip and one script; changes that say what is so already are no changes."""
        listed = [part for ad_id, (said, on) in changes.items() for part in (ad_id, said, on)]
        arguments = (self._most, self._kept, secrets.token_hex(8), *listed)
        changed, size = await self._redis.script(CHANGE, self._keys, arguments)
        if changed < 0:
            raise too_many(size, self._most)
        return int(changed)

    async def news(self, mark: Mark | None) -> News:
        """See FlagStore. One round trip when nothing changed."""
        flags: dict[str, int] = {}
        whole = False
        for _ in range(ATTEMPTS):
            while mark is not None:
                page = await self._page(mark)
                if page.whole:
                    break
                flags |= page.flags
                mark = page.mark
                if len(page.flags) < PAGE:
                    return News(mark, flags, whole, page.size)
            # Changes made while the state is read are asked for afterwards, from the version before.
            mark = (await self._page(Mark("-", 0))).mark
            flags, whole = await self._state(), True
        raise StoreError(f"the flags were replaced {ATTEMPTS} times while they were read")

    async def _page(self, mark: Mark) -> News:
        """The next changes; `whole` when the follower has to start anew."""
        answer = await self._redis.script(NEWS, self._keys, (mark.epoch, mark.version, PAGE))
        epoch, version, size, anew, ads, flags = answer
        changed = {ad.decode(): int(each or 0) for ad, each in zip(ads, flags, strict=True)}
        return News(Mark(epoch.decode(), int(version)), changed, bool(anew), size)

    async def _state(self) -> dict[str, int]:
        """All flags. Those that change meanwhile may be of before or after."""
        flags: dict[str, int] = {}
        cursor = b"0"
        while True:
            cursor, found = await self._redis.script(STATE, self._keys[:1], (cursor.decode(), SCAN))
            flags |= {ad.decode(): int(each) for ad, each in zip(found[::2], found[1::2], strict=True)}
            if cursor == b"0":
                return flags
