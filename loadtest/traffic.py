"""Who asks what: a seeded sequence of requests, or those of a log once more.

Popularity of users and of ads follows Zipf's law; a share of the visitors is new, a share brings its own features, a
share brings its own candidates, and a share wants scores only.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client import RankRequest, ScoreRequest
from client.calls import RANK, SCORE

Ints = npt.NDArray[np.int64]
Share = Annotated[float, Field(ge=0, le=1)]
ROUTES: dict[str, type[RankRequest] | type[ScoreRequest]] = {RANK: RankRequest, SCORE: ScoreRequest}


class TrafficError(ValueError):
    """Requests that cannot be made or read."""


class Mix(BaseModel):
    """What the traffic is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int = Field(default=2000, ge=1)
    """Visitors that return, named `load-0`, `load-1`, …, unless their ids are given."""
    user_exponent: float = Field(default=0.9, ge=0)
    """The i-th most frequent one comes in proportion to i^-exponent."""
    cold: Share = 0.1
    """Share of visitors that nobody has seen before."""
    given: Share = 0.05
    """Share of requests that bring their user's histories along."""
    candidates: Share = 0.1
    """Share of rank requests with candidates of their own."""
    most_candidates: int = Field(default=500, ge=1)
    """Their number is drawn evenly on a logarithmic scale, from 10 up."""
    ad_exponent: float = Field(default=1.0, ge=0)
    """Popularity of ads, among candidates and in histories."""
    score: Share = 0.1
    """Share of requests to /v1/score."""
    k: int = Field(default=10, ge=1)
    """Ads asked for."""
    mean_history: float = Field(default=12.0, gt=0)
    """Behaviours of a returning visitor, on average; their number is geometric."""
    context: dict[str, list[Any]] = Field(default_factory=dict)
    """Values by field, each as likely as the next. Fields that the bundle does not have are left out."""


@dataclass(frozen=True, slots=True)
class World:
    """What a service has told of itself (`world.py`)."""

    ads: list[Any]
    """Ids, the most popular first."""
    users: list[Any]
    context_fields: frozenset[str]
    histories: dict[str, int]
    """Those of ads: name -> longest."""


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of JSON."""

    path: str
    body: str


def zipf(n: int, exponent: float, size: int, random: np.random.Generator) -> Ints:
    """int64[size]: ranks from 0 to n - 1, rank i in proportion to (i + 1)^-exponent."""
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    until = np.cumsum(weights)
    return np.asarray(np.searchsorted(until, random.uniform(0, until[-1], size), side="right").clip(0, n - 1), np.int64)


def history_lengths(mix: Mix, users: int, random: np.random.Generator) -> Ints:
    """int64[users], at least 1."""
    return np.asarray(random.geometric(1 / max(mix.mean_history, 1.0), users), np.int64)


def make_requests(world: World, mix: Mix, n: int, seed: int) -> list[Request]:
    """`n` requests, the same for the same seed. TrafficError without ads, when candidates or scores are wanted."""
    if not world.ads and (mix.candidates or mix.score or mix.given):
        raise TrafficError("the service showed no ads: candidates, scores and histories cannot be made of none")
    random = np.random.default_rng(seed)
    frequent = zipf(len(world.users), mix.user_exponent, n, random) if world.users else np.zeros(n, np.int64)
    cold = random.random(n) < (mix.cold if world.users else 1.0)
    return [_request(world, mix, f"new-{seed}-{i}" if cold[i] else world.users[frequent[i]], random) for i in range(n)]


def _request(world: World, mix: Mix, user: Any, random: np.random.Generator) -> Request:
    context = {
        name: values[random.integers(len(values))]
        for name, values in mix.context.items()
        if name in world.context_fields and values
    }
    body: dict[str, Any] = {"user_id": user, "context": context}
    if random.random() < mix.given:
        length = int(history_lengths(mix, 1, random)[0])
        body["user"] = {
            "history": {
                name: _ads(world, mix, min(length, longest), random) for name, longest in world.histories.items()
            }
        }
    if random.random() < mix.score:
        return _typed(SCORE, body | {"ads": _own(world, mix, random)})
    if random.random() < mix.candidates:
        body["candidates"] = _own(world, mix, random)
    return _typed(RANK, body | {"k": mix.k})


def _typed(path: str, body: dict[str, Any]) -> Request:
    """What the client would send."""
    return Request(path, json.dumps(ROUTES[path].model_validate(body).model_dump(mode="json", exclude_unset=True)))


def _own(world: World, mix: Mix, random: np.random.Generator) -> list[Any]:
    least = min(10, mix.most_candidates)
    many = round(float(np.exp(random.uniform(np.log(least), np.log(mix.most_candidates)))))
    return list(dict.fromkeys(_ads(world, mix, many, random)))


def _ads(world: World, mix: Mix, n: int, random: np.random.Generator) -> list[Any]:
    return [world.ads[i] for i in zipf(len(world.ads), mix.ad_exponent, n, random).tolist()]


def write_requests(requests: list[Request], path: Path) -> None:
    """One JSON line each: `{"path": …, "body": …}`."""
    with path.open("w", encoding="utf-8") as file:
        for each in requests:
            file.write(json.dumps({"path": each.path, "body": json.loads(each.body)}) + "\n")


def read_requests(path: str | Path, *, typed: bool = False) -> list[Request]:
    """Requests of a file as `write_requests` makes it; a line that is only a body is a rank request. `typed`: each is
    held against the client's types too, and then sent as it stands. TrafficError names the line that is no request."""
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
            where, body = (read["path"], read["body"]) if "body" in read else (RANK, read)
            if where not in ROUTES or "user_id" not in body:
                raise TrafficError(f"{path}, line {number}: no request to {RANK} or {SCORE}")
            if typed:
                ROUTES[where].model_validate(body)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise TrafficError(f"{path}, line {number}: no request: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise TrafficError(f"{path}, line {number}: no request to {where}: {what}") from error
        found.append(Request(where, json.dumps(body)))
    if not found:
        raise TrafficError(f"{path}: no requests")
    return found
