"""The desired state in Redis, followed by every process that shares its prefix.

    PREFIXmeta       hash: epoch (drawn with the first version), wanted and agreed (versions)
    PREFIXversions   hash: version -> the state; the last KEPT of them, and the agreed one
    PREFIXaudit      list: changes, newest first; at most AUDITED of them
    PREFIXprocesses  hash: process -> its last report
    PREFIXseen       sorted set: the processes, by when they reported last, in milliseconds of Redis' clock

A script looks at all that can fail before it writes. Every change is one script, so it happens as a whole or not at
all. What Redis acknowledged survives it if it writes every command to disk (`appendfsync always`); with `everysec` the
last second may be lost, and all processes go back to the version before together.
"""

import secrets
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from control.reports import ProcessReport
from control.state import Change, Desired
from service.errors import ConflictError, StoreError
from service.redis_flags import Scripts
from service.state_stores import Known

Read = TypeVar("Read", bound=BaseModel)
KEPT = 100
"""Versions that can be gone back to."""
AUDITED = 10_000

LOOK = """
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'wanted', 'agreed')
local epoch, wanted, agreed = meta[1] or '', meta[2] or '0', meta[3] or '0'
local same, texts = epoch == ARGV[1], {'', ''}
if not (same and wanted == ARGV[2]) then texts[1] = redis.call('HGET', KEYS[2], wanted) or '' end
if not (same and agreed == ARGV[3]) then texts[2] = redis.call('HGET', KEYS[2], agreed) or '' end
return {epoch, wanted, agreed, texts[1], texts[2]}
"""
CHANGE = """
local meta, versions, audit = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', meta, 'wanted', 'agreed')
redis.call('HLEN', versions)
redis.call('LLEN', audit)
local before, after = ARGV[1], ARGV[2]
if (known[1] or '0') ~= before then return tonumber(known[1] or '0') end
redis.call('HSET', versions, after, ARGV[3])
redis.call('LPUSH', audit, ARGV[4])
redis.call('LTRIM', audit, 0, tonumber(ARGV[7]) - 1)
redis.call('HSETNX', meta, 'epoch', ARGV[5])
redis.call('HSET', meta, 'wanted', after)
local old = tostring(tonumber(after) - tonumber(ARGV[6]))
if old ~= known[2] then redis.call('HDEL', versions, old) end
return -1
"""
NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
AGREE = (
    NOW
    + """
local known = redis.call('HMGET', KEYS[1], 'wanted', 'agreed')
if known[1] ~= ARGV[1] then return 0 end
if known[2] == ARGV[1] then return 1 end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], now - ARGV[2], '+inf')) do
  local report = redis.call('HGET', KEYS[2], name)
  if report then
    local said = cjson.decode(report)
    if said.serving > 0 and said.prepared ~= tonumber(ARGV[1]) then return 0 end
  end
end
redis.call('HSET', KEYS[1], 'agreed', ARGV[1])
return 1
"""
)
REPORT = (
    NOW
    + """
redis.call('HLEN', KEYS[1])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. (now - ARGV[3]))) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
"""
)
LEAVE = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
"""
PROCESSES = (
    NOW
    + """
local names = redis.call('ZRANGEBYSCORE', KEYS[2], now - ARGV[1], '+inf')
if #names == 0 then return {} end
return redis.call('HMGET', KEYS[1], unpack(names))
"""
)
VERSION = "return redis.call('HGET', KEYS[1], ARGV[1])"
AUDIT = "return redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)"


class RedisState:
    """A StateStore in Redis."""

    def __init__(self, redis: Scripts, prefix: str, ttl_s: float) -> None:
        """A report counts for `ttl_s`."""
        self._redis = redis
        self._meta, self._versions, self._audit, self._processes, self._seen = (
            f"{prefix}{name}" for name in ("meta", "versions", "audit", "processes", "seen")
        )
        self._ttl_ms = int(ttl_s * 1e3)
        self._epoch = ""
        self._known = Known(None, None)

    async def look(self) -> Known:
        """See StateStore. One round trip; a state that is known already is not sent again."""
        epoch, known = self._epoch, self._known  # as they are now: others may ask while this waits
        versions = [0 if state is None else state.version for state in (known.wanted, known.agreed)]
        answer = await self._redis.script(LOOK, [self._meta, self._versions], (epoch, *versions))
        found, wanted, agreed, wanted_text, agreed_text = (part.decode() for part in answer)
        if found != epoch:
            known = Known(None, None)
        self._epoch = found
        self._known = Known(
            self._state(int(wanted), wanted_text, known.wanted), self._state(int(agreed), agreed_text, known.agreed)
        )
        return self._known

    async def change(self, state: Desired, change: Change) -> None:
        """See StateStore. One script."""
        texts = (state.model_dump_json(), change.model_dump_json(), secrets.token_hex(8))
        keys = [self._meta, self._versions, self._audit]
        found = await self._redis.script(CHANGE, keys, (change.before, state.version, *texts, KEPT, AUDITED))
        if found >= 0:
            raise ConflictError(change.before, int(found))

    async def agree(self, version: int) -> bool:
        """See StateStore. One script."""
        keys = [self._meta, self._processes, self._seen]
        return bool(await self._redis.script(AGREE, keys, (version, self._ttl_ms)))

    async def version(self, version: int) -> Desired | None:
        """See StateStore."""
        text = await self._redis.script(VERSION, [self._versions], (version,))
        return None if text is None else _parsed(Desired, text)

    async def report(self, report: ProcessReport) -> None:
        """See StateStore. Reports that count no more are removed."""
        arguments = (report.process, report.model_dump_json(), self._ttl_ms)
        await self._redis.script(REPORT, [self._processes, self._seen], arguments)

    async def leave(self, process: str) -> None:
        """See StateStore."""
        await self._redis.script(LEAVE, [self._processes, self._seen], (process,))

    async def processes(self) -> list[ProcessReport]:
        """See StateStore."""
        found = await self._redis.script(PROCESSES, [self._processes, self._seen], (self._ttl_ms,))
        return sorted((_parsed(ProcessReport, text) for text in found if text), key=lambda report: report.process)

    async def audit(self, limit: int) -> list[Change]:
        """See StateStore."""
        return [_parsed(Change, text) for text in await self._redis.script(AUDIT, [self._audit], (limit,))]

    async def close(self) -> None:
        """See StateStore. The connection is the feature store's."""

    def _state(self, version: int, text: str, before: Desired | None) -> Desired | None:
        if version == 0:
            return None
        if text:
            return _parsed(Desired, text)
        if before is None or before.version != version:
            raise StoreError(f"version {version} of the state is the one to serve, and is not in {self._versions}")
        return before


def _parsed(kind: type[Read], text: Any) -> Read:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"the state in Redis cannot be read: {str(error)[:300]}") from error
