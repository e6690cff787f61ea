"""What one Redis takes for a user, and how many users it reads a second: by its own tools, on a Redis of its own."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from benchmarks.features import PREFIX, make_record, redis_server
from bundle.record import pack

RECORDS = 16
"""Different users; ads of a large catalogue have longer ids, so records differ a little."""
ADS = 1_000_000
CLIENTS = 50
DIGITS = 12
"""Of the numbers that redis-benchmark writes into keys."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What was measured."""

    record_bytes: float
    """Of a packed user with 50 events, on average."""
    user_bytes: float
    """Of Redis's memory for each of them: record, key, and what Redis adds."""
    reads: float
    """Users read a second, one command each, by CLIENTS that wait for their answer."""


def measure(users: int, reads: int) -> Shard:
    """FileNotFoundError without Redis's server and tools."""
    for tool in ("redis-cli", "redis-benchmark"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed (Debian has it in redis-tools)")
    records = [pack(make_record(ADS, seed)) for seed in range(RECORDS)]
    commands = b"".join(_set(f"{PREFIX}{i:0{DIGITS}}".encode(), records[i % RECORDS]) for i in range(users))
    with redis_server() as port:
        before = _memory(port)
        _tool("redis-cli", "-p", str(port), "--pipe", given=commands)
        taken = (_memory(port) - before) / users
        asked = ["-n", str(reads), "-c", str(CLIENTS), "-r", str(users), "-q", "GET", f"{PREFIX}__rand_int__"]
        said = _tool("redis-benchmark", "-p", str(port), *asked)
    found = re.findall(r"([\d.]+) requests per second", said)
    if not found:
        raise OSError(f"redis-benchmark said no rate: {said.strip()[-200:]!r}")
    return Shard(sum(map(len, records)) / RECORDS, taken, float(found[-1]))


def _set(key: bytes, value: bytes) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)


def _memory(port: int) -> int:
    said = _tool("redis-cli", "-p", str(port), "INFO", "memory")
    found = re.search(r"^used_memory:(\d+)", said, re.MULTILINE)
    if found is None:
        raise OSError(f"Redis does not say its memory: {said.strip()[:200]!r}")
    return int(found[1])


def _tool(*command: str, given: bytes | None = None) -> str:
    cores = sorted(os.sched_getaffinity(0))

    def aside() -> None:
        os.sched_setaffinity(0, cores[-1:])

    done = subprocess.run(command, input=given, capture_output=True, check=False, preexec_fn=aside)
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr.decode().strip() or done.stdout.decode().strip()}")
    return done.stdout.decode()
