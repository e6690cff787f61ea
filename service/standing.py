"""Desired and actual, per process: what /v1/bundles says beside the bundles themselves."""

import time

from service.errors import StoreError
from service.follower import Follower
from service.schemas import StateOut


async def standing(follower: Follower) -> StateOut:
    """Versions as this process knows them, and what every process says of itself. With a store that fails, `error` says
    so and `processes` is empty."""
    known = follower.known
    found: StateOut = {
        "process": follower.process,
        "wanted": 0 if known.wanted is None else known.wanted.version,
        "agreed": 0 if known.agreed is None else known.agreed.version,
        "serving": follower.serving,
        "age_s": round(follower.age_s, 3),
        "error": None,
        "processes": [],
    }
    try:
        reports = await follower.store.processes()
    except StoreError as error:
        return {**found, "error": str(error)}
    now = time.time()
    return {
        **found,
        "processes": [
            {
                "process": each.process,
                "serving": each.serving,
                "prepared": each.prepared,
                "reported_s": round(max(0.0, now - each.at), 3),
                "bundles": [bundle.model_dump(mode="json") for bundle in each.bundles],
            }
            for each in reports
        ],
    }
