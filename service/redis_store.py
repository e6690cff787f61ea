"""The one door to Redis. One key a user holds the packed record; a read is one GET, events are one script."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import SettingsError, StoreError
from service.features import Appended

TRIM = """
local function trimmed(stream, living, most)
  local size = redis.call('XLEN', stream)
  if size <= most or (size <= 2 * most and redis.call('EXISTS', living) == 1) then return 0 end
  return redis.call('XTRIM', stream, 'MAXLEN', '~', most)
end
"""
"""A stream that is too long loses its oldest entries. While a collector lives, which takes and deletes them itself, it
may be twice as long: the collector is behind, and gets time."""
LOG = f"""{TRIM}
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  local fields = tonumber(ARGV[at])
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 1, at + fields))
  at = at + 1 + fields
end
return trimmed(KEYS[1], KEYS[2], tonumber(ARGV[1]))
"""
APPEND = (
    TRIM
    + """
local limit, ttl, most, users = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if #KEYS > users then redis.call('XLEN', KEYS[users + 1]) end
for u = 1, users do
  local key = KEYS[u]
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE a user is a string, not a ' .. kind)
  end
end
local anew = 0
for u = 1, users do
  local key = KEYS[u]
  local record = redis.call('GET', key) or '{}\\n'
  local whole = string.sub(record, 1, 1) == '{' and string.sub(record, -1) == '\\n'
  if not whole or string.find(record, '\\n', 1, true) > most then
    record = '{}\\n'
    anew = anew + 1
  end
  local head, tail = string.match(record .. ARGV[4 + u], '^([^\\n]*)\\n(.*)$')
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
if #KEYS == users then return {anew, 0} end
redis.call('XADD', KEYS[users + 1], '*', 'events', ARGV[users + 6])
return {anew, trimmed(KEYS[users + 1], KEYS[users + 2], tonumber(ARGV[users + 5]))}
"""
)
"""For each user the same as service.features.fitted(bundle.record.trim(record + events, limit), most), in one step: no
request overwrites another's events. Whatever can fail is looked at before the first write, so all or none are stored.
With two keys more the events are logged too, in the same step: who is told that they were taken finds them in the log.
A record that is none is started anew: refusing would shut its user out for ever."""

QUIET_S = 1.0
"""A connection that says nothing for so long is asked for a sign of life, and given up after as long again."""


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The streams that `adrank outcomes` reads; outcomes/streams.py has the same names."""

    served: str
    """Answers to rank requests."""
    events: str
    """Events as they were taken."""
    living: str
    """There while a collector lives."""
    entries: int
    """Of each stream, about."""

    @classmethod
    def of(cls, prefix: str, entries: int) -> "LogKeys":
        """The streams of the service whose users' keys start with `prefix`."""
        return cls(f"log:{prefix}served", f"log:{prefix}events", f"log:{prefix}collector", entries)


class RedisStore:
    """A FeatureStore in Redis.

    Every command has a time-out and no retry. A command that is cancelled or late leaves an answer under way on its
    connection: such a connection is closed and never given to the next caller (redis-py #2665), and one that has data
    before its command was sent is opened anew.

    Reads use redis-py's connections without its client: pool, retries and records of every command take 0.06 of the
    0.2 ms of a read.
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
        log: LogKeys | None = None,
    ) -> None:
        """SettingsError when `url` is none that Redis understands.

        At most `pool_size` connections read and as many write; one more is told of changes. `log`: where events are
        logged when they are appended.
        """
        self._log = log
        self._options = _options(url)
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(pool_size)
        self._idle: list[Any] = []
        self._write_pool = _pool(self._options, write_timeout_s, pool_size)
        self._writer: Any = Redis(connection_pool=self._write_pool)
        self._max_record_bytes = max_record_bytes
        self._prefix = prefix
        self._history_limit = history_limit
        self._ttl_s = ttl_s

    async def get(self, user_id: str) -> bytes | None:
        """See FeatureStore. One round trip."""
        value: bytes | None = await self._ask("GET", self._prefix + user_id)
        return value

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        """See FeatureStore. One round trip and one script for the whole batch. After the StoreError "timeout" it is not
        known whether Redis took the events."""
        keys = [self._prefix + user_id for user_id in events]
        arguments: list[Any] = [self._history_limit, self._ttl_s, self._max_record_bytes, len(keys), *events.values()]
        if self._log is not None and line is not None:
            keys += [self._log.events, self._log.living]
            arguments += [self._log.entries, line]
        anew, trimmed = await self.script(APPEND, keys, arguments)
        return Appended(int(anew), self._log is not None and line is not None, int(trimmed))

    async def log(self, entries: Sequence[Sequence[str | bytes]]) -> int:
        """Add entries to the log of answers, each as its fields and values in turn; how many old ones gave way to them.
        After the StoreError "timeout" it is not known whether Redis took them."""
        if self._log is None:
            raise StoreError("there is no log")
        flat = [part for entry in entries for part in (len(entry), *entry)]
        arguments = (self._log.entries, len(entries), *flat)
        return int(await self.script(LOG, (self._log.served, self._log.living), arguments))

    async def put(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Write whole records, replacing those that are there. One round trip."""
        pipeline = self._writer.pipeline(transaction=False)
        for user_id, record in records:
            pipeline.set(self._prefix + user_id, record, ex=self._ttl_s or None)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    async def script(self, text: str, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Any:
        """What a Lua script answers, within the time-out of writes. StoreError when Redis fails."""
        try:
            return await self._writer.eval(text, len(keys), *keys, *arguments)
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    async def user_ids(self) -> AsyncIterator[str]:
        """The ids of all stored users, by SCAN, in no order."""
        async for key in self._writer.scan_iter(match=self._prefix + "*", count=1000):
            yield key.decode().removeprefix(self._prefix)

    async def follow(self, told: Callable[[], None], changed: Callable[[Iterable[str]], None]) -> None:
        """See FeatureStore. Redis names each key with our prefix that anybody writes or deletes, or that expires."""
        connection = self._connection(protocol=3)
        prefix = self._prefix.encode()
        try:
            async with asyncio.timeout(2 * QUIET_S):
                await connection.connect()
                connection._parser.set_invalidation_push_handler(_as_it_came)
                await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
                await connection.read_response()
            told()
            asked = False
            while True:
                message = await connection.read_response(timeout=QUIET_S, push_request=True)
                if isinstance(message, list) and message[1] is None:  # all keys were deleted
                    told()
                elif isinstance(message, list):
                    changed(_users(message[1], prefix))
                elif message is None and asked:
                    raise StoreError("timeout")
                elif message is None:
                    await connection.send_command("PING")
                asked = message is None
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        finally:
            await connection.disconnect(nowait=True)

    async def ping(self) -> None:
        """See FeatureStore."""
        await self._ask("PING")

    async def close(self) -> None:
        """See FeatureStore."""
        for connection in self._idle:
            await connection.disconnect()
        await self._writer.aclose()
        await self._write_pool.disconnect()

    async def _ask(self, *command: str) -> Any:
        """The answer to one command, on a connection that nobody else uses meanwhile."""
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                connection = self._idle.pop() if self._idle else self._connection(protocol=2)
                try:
                    if connection.is_connected and await connection.can_read():
                        await connection.disconnect(nowait=True)  # Redis closed it, or it has somebody else's answer
                    await connection.send_command(*command)  # connects first where that is needed
                    return await connection.read_response()
                except ResponseError:  # an answer like others, read to its end
                    raise
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    self._idle.append(connection)
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    def _connection(self, protocol: int) -> Any:
        """Not connected yet. Its user limits the time: redis-py's own limit makes every command a task."""
        options = dict(self._options)
        kind = options.pop("connection_class", Connection)
        return kind(**options, protocol=protocol, socket_timeout=None, socket_connect_timeout=self._timeout_s)


async def _as_it_came(message: Any) -> Any:
    """Have redis-py return what Redis says of changes like an answer."""
    return message


def _users(keys: Iterable[bytes], prefix: bytes) -> list[str]:
    """The users whose keys these are. One that is no UTF-8 is nobody's."""
    return [key.removeprefix(prefix).decode(errors="replace") for key in keys]


def _options(url: str) -> dict[str, Any]:
    """What the address says of a connection."""
    try:
        given = urlsplit(url)
        if given.query or given.fragment:  # redis-py would let them overrule the time-outs and the protocol
            raise ValueError("options after the database are not taken")
        if given.scheme != "unix" and not re.fullmatch(r"(/[0-9]*)?", given.path):
            raise ValueError(f"the database is a number, not {given.path[1:]!r}")
        return {**parse_url(url), "retry": Retry(NoBackoff(), 0)}
    except (ValueError, RedisError) as error:
        shown = re.sub(r"//[^@/]*@", "//...@", url)  # a password does not belong in a log
        raise SettingsError(f"redis_url {shown!r} cannot be used: {error}") from error


def _pool(options: dict[str, Any], timeout_s: float, size: int) -> Any:
    return BlockingConnectionPool(
        **options,
        protocol=2,
        max_connections=size,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
    )


def _translated(error: Exception) -> StoreError:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreError("timeout")
    return StoreError(f"store unavailable ({type(error).__name__})")
