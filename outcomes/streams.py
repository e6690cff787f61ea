"""The one door of this package to Redis: the two streams that the service logs to, read by one consumer group.

Names are those of service/redis_store.py (LogKeys). Entries stay pending until `done` says that they are on disk; only
then are they acknowledged and deleted. The key `living` says that a collector is there: while it is, the service lets
streams grow to twice their length before it deletes what was not taken.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from outcomes.errors import OutcomesError

SERVED, EVENTS = "served", "events"
STREAMS = (SERVED, EVENTS)
GROUP, CONSUMER = "adrank-outcomes", "collector"
LIVING_S = 15
"""A collector that says nothing for so long is taken for dead."""
TIMEOUT_S = 30.0

HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ''
"""


class Id(NamedTuple):
    """The id of an entry: rising within its stream."""

    ms: int
    """Redis's clock when the entry was added, Unix milliseconds."""
    number: int

    @classmethod
    def of(cls, text: str) -> "Id":
        """`1700000000000-0`"""
        ms, _, number = text.partition("-")
        return cls(int(ms), int(number))

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


class Entry(NamedTuple):
    """One entry of a stream."""

    id: Id
    fields: dict[bytes, bytes]


class Streams:
    """The streams of one service. Every method raises OutcomesError when Redis fails."""

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix`: the service's setting redis_prefix."""
        self._shown = re.sub(r"//[^@/]*@", "//...@", url)
        try:
            self._redis: Any = Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        except ValueError as error:
            raise OutcomesError(f"--redis {self._shown!r} cannot be used: {error}") from error
        self._keys = {name: f"log:{prefix}{name}" for name in STREAMS}
        self._living = f"log:{prefix}collector"

    def hold(self, token: str) -> None:
        """Say that the collector `token` lives. OutcomesError when another one does."""
        holder = self._ask(lambda: self._redis.eval(HOLD, 1, self._living, token, LIVING_S))
        if holder:
            raise OutcomesError(
                f"another collector takes from {self._shown}, it writes to {holder.decode()}; the key {self._living} "
                f"goes {LIVING_S} s after its end"
            )

    def release(self, token: str) -> None:
        """The collector ends."""
        if self._ask(lambda: self._redis.get(self._living)) == token.encode():
            self._ask(lambda: self._redis.delete(self._living))

    def now_ms(self) -> int:
        """Redis's clock. Entries added from now on have ids of this time or later."""
        seconds, micros = self._ask(self._redis.time)
        return int(seconds) * 1000 + int(micros) // 1000

    def read(self, stream: str, after: str, count: int) -> list[Entry]:
        """The next entries: with `after` ">" such that nobody has yet, with an id those after it that were taken and
        not acknowledged."""
        key = self._keys[stream]

        def ask() -> Any:
            try:
                return self._redis.xreadgroup(GROUP, CONSUMER, {key: after}, count=count)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._redis.xgroup_create(key, GROUP, id="0", mkstream=True)  # new, or Redis was emptied
                return self._redis.xreadgroup(GROUP, CONSUMER, {key: after}, count=count)

        found = self._ask(ask)
        entries = found[0][1] if found else []
        return [Entry(Id.of(each.decode()), fields or {}) for each, fields in entries]

    def done(self, stream: str, ids: Sequence[Id]) -> None:
        """These entries, and all before them, are on disk."""
        if not ids:
            return
        key, last = self._keys[stream], max(ids)
        self._ask(lambda: self._redis.xack(key, GROUP, *map(str, ids)))
        self._ask(lambda: self._redis.xtrim(key, minid=str(Id(last.ms, last.number + 1)), approximate=False))

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.close()

    def _ask(self, command: Any) -> Any:
        try:
            return command()
        except (RedisError, OSError) as error:
            raise RedisDownError(f"{self._shown}: {type(error).__name__}: {error}") from error


class RedisDownError(OutcomesError):
    """Redis does not answer, or answers with an error; it may be tried again."""
