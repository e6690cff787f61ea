"""The last requests that a process answered, with the records as served: what a new bundle is tried on.

Bodies and records are kept as they are, references to bytes that are there anyway: nothing is copied, packed or written
until a bundle is to be judged.
"""

import base64
import binascii
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ContractError
from service.errors import InvalidRequestError
from service.problem import parse
from service.schemas import RankRequest
from service.user_cache import StoredUser
from service.user_features import UserFeatures

LARGEST = 32_768
"""Bytes of a body or a record above which a request is not kept: 200 of them never hold more than 13 MB. As usual they
are 0.2 and 2 kB."""
NOBODY = "-"
"""In place of the record of a user of whom nothing was known."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, and what was known of its user when it was answered."""

    request: RankRequest
    features: UserFeatures


class Recent:
    """The last requests, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._ring: deque[tuple[bytes, StoredUser | None]] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, body: bytes, stored: StoredUser | None) -> None:
        """A request that was answered. Takes 0.2 us."""
        if len(body) <= LARGEST and (stored is None or len(stored.packed) <= LARGEST):
            self._ring.append((body, stored))

    def write(self, path: Path) -> int:
        """One line a request, the oldest first: body and record in base64. Returns how many. May run in any thread: the
        ring is copied in one step of the interpreter."""
        kept = list(self._ring)
        with path.open("w") as file:
            for body, stored in kept:
                record = NOBODY if stored is None else base64.b64encode(stored.packed).decode()
                file.write(f"{base64.b64encode(body).decode()} {record}\n")
        return len(kept)


def read_recent(path: Path) -> list[Seen]:
    """What `Recent.write` wrote. ContractError for a file that holds something else."""
    found = []
    for i, line in enumerate(path.read_text().splitlines()):
        try:
            body, record = line.split(" ")
            stored = None if record == NOBODY else StoredUser(base64.b64decode(record, validate=True))
            request = parse(RankRequest, base64.b64decode(body, validate=True))
        except (ValueError, binascii.Error, InvalidRequestError) as error:
            raise ContractError(f"{path}, line {i + 1}: no request: {error}") from error
        found.append(Seen(request, UserFeatures(stored is not None, stored=stored)))
    return found
