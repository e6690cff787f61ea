"""What every peer runs for a request: the same weights, in the plain way or with our graph. numpy and onnxruntime only.

This module and the others of this folder run in the peers' own environments, so they import nothing of ours.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


class Scorer:
    """Click probabilities of one request's ads. `folder` is what benchmarks/http/material.py wrote."""

    def __init__(self, folder: str | Path, graph: str) -> None:
        """`graph`: "tiled", the usual export with the user repeated for every ad, or "factorised", ours."""
        folder = Path(folder)
        self.tiled = graph == "tiled"
        self.ids = np.load(folder / "ids.npy")  # int64[ads], ascending external ids
        self.fields = np.load(folder / "fields.npy")  # int64[ads + 2, 2], item and category; row 1 is the unknown ad
        self.ages = np.load(folder / "age.npy")
        self.cities = np.load(folder / "city.npy")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # the server has one core
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        (path,) = (folder / graph).glob("*.onnx")
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def score(self, ads: Any, age: int, city: int, clicks: Any) -> np.ndarray:
        """float32[N] probabilities of external ad ids `ads`, for a user of `age` and `city` who clicked `clicks`."""
        candidates = self.fields[rows(self.ids, np.asarray(ads, np.int64))]
        history = self.fields[rows(self.ids, np.asarray(clicks, np.int64))]
        user = np.array([rows(self.ages, np.int64(age)), rows(self.cities, np.int64(city))])
        if self.tiled:
            n = len(candidates)
            user, history = np.tile(user, (n, 1)), np.tile(history, (n, 1, 1))
        feeds = {"user": user, "history_clicks": history, "ads": candidates}
        logits = self.session.run(["logits"], feeds)[0]
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))

    def score_body(self, body: dict[str, Any]) -> list[float]:
        """The same for a parsed request body."""
        user = body["user"]
        profile = user["profile"]
        return self.score(body["ads"], profile["age"], profile["city"], user["history"]["clicks"]).tolist()

    def score_json(self, body: str | bytes) -> list[float]:
        """The same for the JSON text of a body."""
        return self.score_body(json.loads(body))


def rows(values: np.ndarray, wanted: Any) -> Any:
    """Place of each value in the sorted `values`, plus 2; 1 for a value that is not there."""
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[places] == wanted, places + 2, 1)
