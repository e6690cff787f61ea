"""Keys that callers show as `Authorization: Bearer KEY`.

Without a key its routes are open: settings.py sees to it that this is so on the loopback address alone."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from service.errors import UnauthorizedError

SCHEME = "bearer "
MOST = 2
"""Keys of one setting at a time: the one that goes and the one that comes."""
SHORTEST, LONGEST = 16, 1024
"""Characters of a key."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What one group of routes asks for."""

    setting: str
    """Where the key is set."""
    keys: tuple[bytes, ...]

    @classmethod
    def of(cls, setting: str, value: str | None) -> "Credential":
        """By the value of a setting: None, a key, or two with a comma between."""
        return cls(setting, () if value is None else tuple(key.encode() for key in parse_keys(value)))

    def check(self, headers: Mapping[str, str]) -> None:
        """UnauthorizedError without the right key, where one is set."""
        if not self.keys:
            return
        shown = shown_key(headers.get("authorization", ""))
        if not self.is_right(shown):
            raise self.refusal(shown)

    def is_right(self, shown: str) -> bool:
        """Whether it is one of the keys, found in a time that does not depend on where the first wrong character is."""
        given, right = shown.encode(), False
        for key in self.keys:
            right |= hmac.compare_digest(given, key)
        return right

    def refusal(self, shown: str) -> UnauthorizedError:
        """Of a caller who showed this."""
        what = "a wrong one was given" if shown else "none was given"
        return UnauthorizedError(f"this needs the key of {self.setting} as `Authorization: Bearer KEY`; {what}")


def shown_key(header: str) -> str:
    """The key in the value of an Authorization header; empty without one."""
    return header[len(SCHEME) :].strip() if header[: len(SCHEME)].lower() == SCHEME else ""


def parse_keys(text: str) -> list[str]:
    """The keys of a setting. ValueError, which quotes none of them, when there are more than two, or one is too short
    or too long."""
    keys = [key.strip() for key in text.split(",")]
    if len(keys) > MOST:
        raise ValueError(f"{len(keys)} keys with commas between, at most {MOST} at a time")
    for i, key in enumerate(keys, 1):
        if not SHORTEST <= len(key) <= LONGEST:
            raise ValueError(f"key {i} has {len(key)} characters, from {SHORTEST} to {LONGEST} are needed")
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"key {i} has characters that no HTTP header takes as they are: only those of ASCII")
    return keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
