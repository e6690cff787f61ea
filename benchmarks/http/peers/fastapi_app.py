"""Plain FastAPI, as people write it: a pydantic body, one route, `session.run`.

The route is `async def`: with one core there is nothing to gain from the thread pool of a `def` route, which then runs
several networks in turns. At 4 connections `def` gave 60 requests a second and `async def` 64 (light, tiled), with our
graph 210 and 363. uvicorn's own advice for speed is uvloop and httptools (https://www.uvicorn.org/settings).
"""

import os

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from scoring import Scorer

scorer = Scorer(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"])
app = FastAPI()


class Profile(BaseModel):
    """What is known of the user."""

    age: int
    city: int


class History(BaseModel):
    """What the user did."""

    clicks: list[int]


class User(BaseModel):
    """The user's features."""

    profile: Profile
    history: History


class Body(BaseModel):
    """A request."""

    user_id: int
    context: dict[str, str]
    ads: list[int]
    user: User


class Answer(BaseModel):
    """A probability for each ad."""

    scores: list[float]


@app.post("/score")
async def score(body: Body) -> Answer:
    """The click probability of each ad."""
    profile = body.user.profile
    scores = scorer.score(body.ads, profile.age, profile.city, body.user.history.clicks)
    return Answer(scores=scores.tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PEER_PORT"]), loop="uvloop", http="httptools", access_log=False)
