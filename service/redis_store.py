"""The one door to Redis. One key a user holds the packed record; a read is one GET, events are one transaction."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import SettingsError, StoreError

APPEND = """
local record = redis.call('GET', KEYS[1])
if not record then record = '{}\\n' end
local head, tail = string.match(record .. ARGV[1], '^([^\\n]*)\\n(.*)$')
local lines, seen, kept = {}, {}, {}
for line in string.gmatch(tail, '[^\\n]+') do lines[#lines + 1] = line end
local limit = tonumber(ARGV[2])
for i = #lines, 1, -1 do
  local kind = string.match(lines[i], '^[^,]*')
  seen[kind] = (seen[kind] or 0) + 1
  if seen[kind] <= limit then table.insert(kept, lines[i]) end
end
local parts = {head}
for i = #kept, 1, -1 do parts[#parts + 1] = kept[i] end
record = table.concat(parts, '\\n') .. '\\n'
local ttl = tonumber(ARGV[3])
if ttl > 0 then redis.call('SET', KEYS[1], record, 'EX', ttl) else redis.call('SET', KEYS[1], record, 'KEEPTTL') end
return #kept
"""
"""The same as bundle.record.trim(record + events, limit), in one step: no request overwrites another's events."""


class RedisStore:
    """A FeatureStore in Redis.

    Every command has a time-out and no retry. A command that is cancelled or late leaves an answer under way on its
    connection; redis-py closes such a connection instead of handing it to the next caller (redis-py #2665, fixed since
    4.5.5), and a connection that still has data when it is taken from the pool is opened anew. That second guard works
    only without maintenance notifications, which is why the plain RESP2 protocol is asked for.
    """

    def __init__(
        self, url: str, *, prefix: str, timeout_s: float, pool_size: int, history_limit: int, ttl_s: int = 0
    ) -> None:
        """SettingsError when `url` is none that Redis understands."""
        try:
            self._pool: Any = BlockingConnectionPool.from_url(
                url,
                protocol=2,
                max_connections=pool_size,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, RedisError) as error:
            shown = re.sub(r"//[^@/]*@", "//...@", url)  # a password does not belong in a log
            raise SettingsError(f"redis_url {shown!r} cannot be used: {error}") from error
        self._redis: Any = Redis(connection_pool=self._pool)
        self._prefix = prefix
        self._history_limit = history_limit
        self._ttl_s = ttl_s

    async def get(self, user_id: str) -> bytes | None:
        """See FeatureStore. One round trip."""
        try:
            value: bytes | None = await self._redis.get(self._prefix + user_id)
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        return value

    async def append(self, events: Mapping[str, bytes]) -> None:
        """See FeatureStore. One round trip for the whole batch, applied as one transaction."""
        pipeline = self._redis.pipeline(transaction=True)
        for user_id, packed in events.items():
            pipeline.eval(APPEND, 1, self._prefix + user_id, packed, self._history_limit, self._ttl_s)
        await self._execute(pipeline)

    async def put(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Write whole records, replacing those that are there. One round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, record in records:
            pipeline.set(self._prefix + user_id, record, ex=self._ttl_s or None)
        await self._execute(pipeline)

    async def user_ids(self) -> AsyncIterator[str]:
        """The ids of all stored users, by SCAN, in no order."""
        async for key in self._redis.scan_iter(match=self._prefix + "*", count=1000):
            yield key.decode().removeprefix(self._prefix)

    async def ping(self) -> None:
        """See FeatureStore."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """See FeatureStore."""
        await self._redis.aclose()
        await self._pool.disconnect()

    async def _execute(self, pipeline: Any) -> None:
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _translated(error) from error


def _translated(error: Exception) -> StoreError:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreError("timeout")
    return StoreError(f"store unavailable ({type(error).__name__})")
