"""Arms by header, for testing: `X-Adrank-Arm: experiment=arm[,experiment=arm]`, with the key of the setting
`testing_key` as bearer token.

The key is one of its own: it lets testers see an arm before anybody else does, and change nothing.
"""

import re

from starlette.requests import Request

from service.credentials import Credential
from service.errors import ForbiddenError, InvalidRequestError
from service.plan import ARM_HEADER

HEADER = ARM_HEADER.lower().encode()
ONE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63})=([a-z0-9][a-z0-9_-]{0,63})")
MOST = 64
"""As many experiments as there may be."""
FORM = "experiment=arm[,experiment=arm]"


def forced_arms(request: Request, key: str | None) -> dict[str, str] | None:
    """Experiment -> arm; None where the header is not there.

    ForbiddenError while no key is set, UnauthorizedError without the right one, InvalidRequestError for another form.
    """
    given = next((value for name, value in request.scope["headers"] if name == HEADER), None)
    if given is None:
        return None
    if key is None:
        raise ForbiddenError(f"{ARM_HEADER} is only taken with the key of testing_key, which is not set")
    Credential.of("testing_key", key).check(request.headers)
    return parse(given.decode("latin-1"))


def parse(text: str) -> dict[str, str]:
    """The header's value. InvalidRequestError for another form, or an experiment that is there twice."""
    arms: dict[str, str] = {}
    parts = text.split(",")
    if len(parts) > MOST:
        raise InvalidRequestError(
            f"{ARM_HEADER} names {len(parts)} arms, at most {MOST}", ARM_HEADER, f"at most {MOST}"
        )
    for part in parts:
        if (found := ONE.fullmatch(part.strip())) is None:
            raise InvalidRequestError(f"{ARM_HEADER} has {part.strip()[:100]!r}, not {FORM}", ARM_HEADER, FORM)
        experiment, arm = found.groups()
        if arms.setdefault(experiment, arm) != arm:
            raise InvalidRequestError(
                f"{ARM_HEADER} puts {experiment} into {arms[experiment]} and {arm}", ARM_HEADER, "one arm an experiment"
            )
    return arms
