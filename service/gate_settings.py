"""The settings of where new bundles come from, and of what the gate allows; part of settings.py."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from bundle.errors import SignatureError
from bundle.signature import check_key


class GateSettings(BaseSettings):
    """See Settings."""

    bundles: str | None = Field(
        None,
        description="Where other bundles are fetched from: a folder, or a URL such as s3://bucket/bundles. Without it "
        "the folder that `bundle` is in.",
    )
    bundle_cache: Path | None = Field(
        None,
        description="Folder for copies of bundles of a URL, and for what processes of one host share of the gate. "
        "Without it one of this user's in the system's temporary folder.",
    )
    bundle_copies: int = Field(
        8, ge=2, le=1000, description="Copies kept there at most, but for those that are needed now."
    )
    bundle_keys: str | None = Field(
        None,
        description="Public keys of `adrank bundle keygen`, separated by commas. A bundle that none of them signed is "
        "refused. Without keys no signature is asked for.",
    )
    recent_requests: int = Field(
        200,
        ge=0,
        le=10_000,
        description="Rank requests that each process keeps, to try new bundles on. 0: none.",
    )
    gate_timeout_seconds: float = Field(
        300.0, gt=0, le=86_400, description="Longest time a new bundle is fetched and judged; then it is refused."
    )
    gate_idle_seconds: float = Field(
        20.0,
        ge=0,
        le=86_400,
        description="For so long a bundle is judged only in time of a processor that nothing else wants; then its "
        "process gets a tenth of a core that is never idle. That needs root or RLIMIT_NICE of 10; without, it goes on "
        "with the lowest priority.",
    )
    gate_verdict_seconds: float = Field(
        60.0, ge=0, le=86_400, description="How long the processes of one host go by a verdict that one of them got."
    )
    gate_min_requests: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Recent requests without which no bundle passes. 0: with none, what needs them is skipped, and the "
        "report says so.",
    )
    gate_lost_fields: int = Field(
        0,
        ge=0,
        description="Fields of requests that the live bundle takes and a new one may refuse: context, filters, "
        "targeting, profile, histories.",
    )
    gate_refused_share: float = Field(
        0.0, ge=0, le=1, description="Share of recent requests that a new bundle may refuse."
    )
    gate_non_finite_share: float = Field(
        0.0, ge=0, le=1, description="Share of scores that may be NaN or infinite, beyond the live bundle's share."
    )
    gate_overlap: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Mean share of the ten best ads that both bundles must have in common. 0 where catalogues change.",
    )
    gate_score_shift: float = Field(
        0.5, ge=0, description="Mean difference of the pCTR of the same ads ÷ their mean pCTR, at most."
    )
    gate_psi: float = Field(
        1.0, ge=0, description="Population stability index of the pCTR of each bundle's own answers, at most."
    )
    gate_latency_ratio: float = Field(
        1.5, gt=0, description="Median time of the funnel ÷ that of the live bundle, at most."
    )
    gate_memory_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the memory available that loading a bundle in all processes of the host may take.",
    )

    @field_validator("bundle_keys")
    @classmethod
    def _are_keys(cls, text: str | None) -> str | None:
        try:
            for key in split_keys(text):
                check_key(key)
        except SignatureError as error:
            raise ValueError(str(error)) from error
        return text

    @property
    def public_keys(self) -> tuple[str, ...]:
        """One of which must have signed a bundle; none: no signature is asked for."""
        return split_keys(self.bundle_keys)


def split_keys(text: str | None) -> tuple[str, ...]:
    """The keys of `bundle_keys`."""
    return tuple(key.strip() for key in (text or "").split(",") if key.strip())
