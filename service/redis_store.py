"""The one door to Redis. One key a user holds the packed record; a read is one GET, events are one script."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import SettingsError, StoreError

APPEND = """
local limit, ttl, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE a user is a string, not a ' .. kind)
  end
end
local anew = 0
for u, key in ipairs(KEYS) do
  local record = redis.call('GET', key) or '{}\\n'
  local whole = string.sub(record, 1, 1) == '{' and string.sub(record, -1) == '\\n'
  if not whole or string.find(record, '\\n', 1, true) > most then
    record = '{}\\n'
    anew = anew + 1
  end
  local head, tail = string.match(record .. ARGV[3 + u], '^([^\\n]*)\\n(.*)$')
  local lines, seen, kept = {}, {}, {}
  for line in string.gmatch(tail, '[^\\n]+') do lines[#lines + 1] = line end
  local size = #head + 1
  for i = #lines, 1, -1 do
    local kind = string.match(lines[i], '^[^,]*')
    seen[kind] = (seen[kind] or 0) + 1
    if seen[kind] <= limit then
      size = size + #lines[i] + 1
      if size > most then break end
      kept[#kept + 1] = lines[i]
    end
  end
  local parts = {head}
  for i = #kept, 1, -1 do parts[#parts + 1] = kept[i] end
  record = table.concat(parts, '\\n') .. '\\n'
  if ttl > 0 then redis.call('SET', key, record, 'EX', ttl) else redis.call('SET', key, record, 'KEEPTTL') end
end
return anew
"""
"""For each user the same as service.features.fitted(bundle.record.trim(record + events, limit), most), in one step: no
request overwrites another's events. Whatever can fail is looked at before the first write, so all or none are stored.
A record that is none is started anew: refusing would shut its user out for ever."""


class RedisStore:
    """A FeatureStore in Redis.

    Every command has a time-out and no retry. A command that is cancelled or late leaves an answer under way on its
    connection; redis-py closes such a connection instead of handing it to the next caller (redis-py #2665, fixed since
    4.5.5), and a connection that still has data when it is taken from the pool is opened anew. That second guard works
    only without maintenance notifications, which is why the plain RESP2 protocol is asked for.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout_s: float,
        write_timeout_s: float,
        pool_size: int,
        history_limit: int,
        max_record_bytes: int,
        ttl_s: int = 0,
    ) -> None:
        """SettingsError when `url` is none that Redis understands.

        Writes have connections of their own, `pool_size` again, because the time-out belongs to the connection.
        """
        self._read_pool = _pool(url, timeout_s, pool_size)
        self._write_pool = _pool(url, write_timeout_s, pool_size)
        self._redis: Any = Redis(connection_pool=self._read_pool)
        self._writer: Any = Redis(connection_pool=self._write_pool)
        self._max_record_bytes = max_record_bytes
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

    async def append(self, events: Mapping[str, bytes]) -> int:
        """See FeatureStore. One round trip and one script for the whole batch. After the StoreError "timeout" it is not
        known whether Redis took the events."""
        keys = [self._prefix + user_id for user_id in events]
        numbers = (self._history_limit, self._ttl_s, self._max_record_bytes)
        try:
            anew = await self._writer.eval(APPEND, len(keys), *keys, *numbers, *events.values())
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        return int(anew)

    async def put(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Write whole records, replacing those that are there. One round trip."""
        pipeline = self._writer.pipeline(transaction=False)
        for user_id, record in records:
            pipeline.set(self._prefix + user_id, record, ex=self._ttl_s or None)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _translated(error) from error

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
        for client, pool in ((self._redis, self._read_pool), (self._writer, self._write_pool)):
            await client.aclose()
            await pool.disconnect()


def _pool(url: str, timeout_s: float, size: int) -> Any:
    try:
        given = urlsplit(url)
        if given.query or given.fragment:  # redis-py would let them overrule the time-outs and the protocol
            raise ValueError("options after the database are not taken")
        if given.scheme != "unix" and not re.fullmatch(r"(/[0-9]*)?", given.path):
            raise ValueError(f"the database is a number, not {given.path[1:]!r}")
        return BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=size,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, RedisError) as error:
        shown = re.sub(r"//[^@/]*@", "//...@", url)  # a password does not belong in a log
        raise SettingsError(f"redis_url {shown!r} cannot be used: {error}") from error


def _translated(error: Exception) -> StoreError:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreError("timeout")
    return StoreError(f"store unavailable ({type(error).__name__})")
