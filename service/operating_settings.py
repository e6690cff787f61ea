"""Settings of those who operate the service: who is let in, how it stops, what it logs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from service.credentials import parse_keys


def _keys(text: str) -> str:
    parse_keys(text)
    return text


Keys = Annotated[str, AfterValidator(_keys)]
"""One key, or two with a comma between."""


class OperatingSettings(BaseSettings):
    """The part of Settings that is about operating it."""

    api_key: Keys | None = Field(
        None,
        repr=False,
        description="Key of callers, 16 to 1,024 characters, for all of /v1/ but administration. Two with a comma "
        "between are both taken, while callers change from one to the other. Needed unless host is a loopback address.",
    )
    admin_key: Keys | None = Field(
        None,
        repr=False,
        description="Key of administration, as api_key. Needed unless host is a loopback address.",
    )
    testing_key: Keys | None = Field(
        None,
        repr=False,
        description="Key with which testers name the arm they want in X-Adrank-Arm, as api_key. Without it nobody may.",
    )

    drain_seconds: float | None = Field(
        None,
        ge=0,
        le=600,
        description="On SIGTERM, how long /readyz says 503 while requests are still taken, so that balancers look "
        "elsewhere. Without it 5, or 0 where host is a loopback address.",
    )
    shutdown_seconds: int = Field(
        10,
        ge=1,
        le=3600,
        description="Afterwards, how long requests in flight may still take before they are cut.",
    )

    log_format: Literal["text", "json"] = Field(
        "text", description="json: one JSON object a line, uvicorn's own lines too, and nothing else is printed."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug logs every request, info those that were degraded or refused."
    )
    log_requests_per_second: int = Field(
        10,
        ge=0,
        le=100_000,
        description="Request lines of each process at most, but for log_level debug; the next one says how many were "
        "left out. 0: none is left out.",
    )
