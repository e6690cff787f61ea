"""Golden rows: encoded requests with the outputs the exporter proved, replayed by whoever loads the bundle.

golden.npz holds, for R requests of N candidates each:

    user int64[R, Cu]       user_numbers float32[R, Nu]        context int64[R, Cc]   context_numbers float32[R, Nc]
    history_<name> int64[R, L, H] (padded at the end with 0)   ads int64[R, N] catalogue rows
    query float32[R, d]     offset float32[R]                  logits float32[R, N]
    logits_<rung> float32[R, N] of each further rung of the ladder
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from bundle.encoding import Float32, Int64
from bundle.errors import ContractError, GoldenError
from bundle.manifest import Manifest

GOLDEN = "golden.npz"

RUNG = "logits_"
"""What the names of the arrays of further rungs begin with."""

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    RuntimeError,
    BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise on a damaged archive, or one that lacks an array or holds something else."""


@dataclass(frozen=True, slots=True)
class Common:
    """The encoded common features of one request: what all its candidates share."""

    user: Int64
    user_numbers: Float32
    context: Int64
    context_numbers: Float32
    histories: dict[str, Int64]
    """History name -> ids int64[L >= 1, H]."""

    def feeds(self) -> dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]]:
        """Graph inputs by name."""
        feeds: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]] = {
            "user": self.user,
            "user_numbers": self.user_numbers,
            "context": self.context,
            "context_numbers": self.context_numbers,
        }
        return feeds | {f"history_{name}": ids for name, ids in self.histories.items()}


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """One request, its candidates and every stage's expected output."""

    common: Common
    ads: Int64
    query: Float32
    offset: float
    logits: Float32
    ladder: dict[str, Float32] = field(default_factory=dict)
    """Rung name -> logits."""


def save_golden(folder: Path, rows: list[GoldenRow]) -> None:
    """Write golden.npz. All rows have the same number of candidates and history length."""
    arrays = {name: np.stack([row.common.feeds()[name] for row in rows]) for name in rows[0].common.feeds()}
    arrays["ads"] = np.stack([row.ads for row in rows])
    arrays["query"] = np.stack([row.query for row in rows])
    arrays["offset"] = np.array([row.offset for row in rows], dtype=np.float32)
    arrays["logits"] = np.stack([row.logits for row in rows])
    arrays |= {f"{RUNG}{name}": np.stack([row.ladder[name] for row in rows]) for name in rows[0].ladder}
    np.savez(folder / GOLDEN, allow_pickle=False, **arrays)


def load_golden(folder: Path) -> list[GoldenRow]:
    """Read golden.npz. ContractError when it is no such file."""
    try:
        # Opened here, because np.load leaves a file open that turns out to be damaged.
        with (folder / GOLDEN).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        histories = [name for name in arrays if name.startswith("history_")]
        return [
            GoldenRow(
                Common(
                    arrays["user"][i],
                    arrays["user_numbers"][i],
                    arrays["context"][i],
                    arrays["context_numbers"][i],
                    {name.removeprefix("history_"): arrays[name][i] for name in histories},
                ),
                arrays["ads"][i],
                arrays["query"][i],
                float(arrays["offset"][i]),
                arrays["logits"][i],
                {name.removeprefix(RUNG): arrays[name][i] for name in arrays if name.startswith(RUNG)},
            )
            for i in range(len(arrays["ads"]))
        ]
    except UNREADABLE as error:
        raise ContractError(f"{folder / GOLDEN}: cannot be read: {error}") from error


def check_golden(folder: Path, rows: list[GoldenRow], manifest: Manifest) -> None:
    """ContractError unless there are as many rows as the manifest says, with logits of each of its rungs."""
    announced, rungs = manifest.golden.requests, sorted(each.name for each in manifest.stages.finerank.ladder)
    if len(rows) != announced:
        raise ContractError(f"{folder / GOLDEN}: {len(rows)} requests, the manifest says {announced}")
    if rows and (found := sorted(rows[0].ladder)) != rungs:
        raise ContractError(f"{folder / GOLDEN}: logits of the rungs {found}, the manifest has {rungs}")


def compare(what: str, found: npt.ArrayLike, expected: npt.ArrayLike, tolerance: float) -> float:
    """The largest |difference|; GoldenError when it is above `tolerance` or not finite, or the shapes differ."""
    one, two = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if one.shape != two.shape:
        raise GoldenError(f"{what}: has shape {list(one.shape)}, the golden rows {list(two.shape)}")
    with np.errstate(invalid="ignore"):
        gap = np.abs(one - two)
    worst = float(gap.max(initial=0.0))
    if not worst <= tolerance:
        message = f"{what}: differs from the golden rows by {worst:.3g}, at most {tolerance:.3g} is allowed"
        raise GoldenError(message, worst, tolerance)
    return worst
