"""What a compressed fine-ranker was measured to be worth against the network it was made from; in the manifest."""

from collections.abc import Iterator

from pydantic import Field

from bundle.schema import Frozen


class Difference(Frozen):
    """A metric of the compressed network minus that of the original, on the same impressions, and where that difference
    lies with a probability of 95 % (users drawn with replacement)."""

    value: float
    low: float
    high: float


class Measurements(Frozen):
    """What was measured of one of the two networks."""

    quality: dict[str, float]
    """auc, gauc, logloss, calibration and so on, on the rows of the certificate."""
    bytes: int = Field(ge=0)
    """Of all weights of its exported graph."""
    parameters: int = Field(ge=0)
    multiply_adds: int = Field(ge=0)
    """For a candidate; models/networks/cost.py says what is counted."""
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    """Of its exported graph, `candidates` of a request at once, one thread; both networks took turns."""


class Teacher(Frozen):
    """Another network that fine-tuning learnt from."""

    name: str
    """Of its run."""
    seed: int
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of their file."""


class Certificate(Frozen):
    """Proof that came with a compressed network."""

    original: str
    """Name of the original's run."""
    original_weights: str = Field(pattern="^[0-9a-f]{64}$")
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the weights' files."""
    original_seed: int
    seed: int
    """Of the recipe: calibration sets and fine-tuning."""
    recipe: str
    steps: tuple[str, ...]
    """In order, as the recipe has them."""
    teachers: tuple[Teacher, ...] = ()
    """The mean of whose logits fine-tuning learnt. None: the original's, or there was no teacher."""
    split: str
    rows: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of users, ads and labels of that split."""
    impressions: int = Field(gt=0)
    differences: dict[str, Difference]
    """auc, gauc, logloss."""
    before: Measurements
    after: Measurements
    candidates: int = Field(gt=0)
    requests: int = Field(gt=0)
    """How often each graph ran."""
    processor: str
    made: str
    """When."""

    def lines(self) -> Iterator[str]:
        """For people: what it is of, then original -> compressed, with the ratio or the difference."""
        yield f"certificate: {self.original} (seed {self.original_seed}) by {self.recipe}: {', '.join(self.steps)}"
        if self.teachers:
            yield f"  taught by {', '.join(f'{each.name} (seed {each.seed})' for each in self.teachers)}"
        for name, one, two, digits in (
            ("bytes", self.before.bytes, self.after.bytes, 0),
            ("multiply-adds", self.before.multiply_adds, self.after.multiply_adds, 0),
            (f"ms for {self.candidates}, p50", self.before.p50_ms, self.after.p50_ms, 3),
            (f"ms for {self.candidates}, p99", self.before.p99_ms, self.after.p99_ms, 3),
        ):
            yield f"  {name:<20} {one:>14,.{digits}f} -> {two:>14,.{digits}f}   {_ratio(one, two):.2f} times less"
        for name, each in self.differences.items():
            one, two = self.before.quality[name], self.after.quality[name]
            yield (
                f"  {f'{self.split} {name}':<20} {one:>14.5f} -> {two:>14.5f}   "
                f"{each.value:+.5f} [{each.low:+.5f}, {each.high:+.5f}]"
            )

    def figures(self) -> dict[str, float]:
        """Flat: NAME_ratio is original ÷ compressed; dMETRIC the difference, with _low and _high."""
        before, after = self.before, self.after
        found = {
            "bytes_ratio": _ratio(before.bytes, after.bytes),
            "macs_ratio": _ratio(before.multiply_adds, after.multiply_adds),
            "p50_ratio": _ratio(before.p50_ms, after.p50_ms),
            "p99_ratio": _ratio(before.p99_ms, after.p99_ms),
        }
        for name, each in self.differences.items():
            found |= {f"d{name}": each.value, f"d{name}_low": each.low, f"d{name}_high": each.high}
        return found


def _ratio(one: float, two: float) -> float:
    """Two towers may have no multiply-add left, and no matrix may be stored."""
    return one / two if two else float("inf")
