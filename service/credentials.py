"""Keys that callers show as `Authorization: Bearer KEY`."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from service.errors import ForbiddenError, UnauthorizedError

SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Credential:
    """What one group of routes asks for."""

    setting: str
    """Where the key is set."""
    key: str | None
    open_without: bool
    """Whether callers are let in while no key is set."""

    def check(self, headers: Mapping[str, str]) -> None:
        """UnauthorizedError without the right key; ForbiddenError where none is set and none would do."""
        if self.key is None:
            if self.open_without:
                return
            raise ForbiddenError(
                f"{self.setting} is not set, and the service does not listen on the loopback address alone: nobody is "
                "let in here"
            )
        given = headers.get("authorization", "")
        shown = given[len(SCHEME) :].strip() if given[: len(SCHEME)].lower() == SCHEME else ""
        # Compared in a time that does not depend on where the first wrong character is.
        if not hmac.compare_digest(shown.encode(), self.key.encode()):
            what = "a wrong one was given" if shown else "none was given"
            raise UnauthorizedError(f"this needs the key of {self.setting} as `Authorization: Bearer KEY`; {what}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
