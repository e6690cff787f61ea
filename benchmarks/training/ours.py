"""Our DIN, trained by our own loop (models/training.py) in a process of its own.

python -m benchmarks.training.ours: one line of JSON in, one out, as benchmarks/training/peers/turns.py has it.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.training.data import described
from models.config import TrainConfig, TrainingConfig
from models.networks.config import DinConfig
from models.numerics import computing
from models.training import train

NETWORK = DinConfig(
    kind="din", embedding=16, embedding_std=0.1, attention_hidden=(64, 32), hidden=(256, 128), dropout=0.2
)


def turn(job: Mapping[str, Any]) -> dict[str, float]:
    """Train one epoch over job["folder"], from the first batch read to the last step: `seconds` of `samples`, the
    validation split's `logloss` afterwards, `parameters`, and those of them that are `embeddings`."""
    settings = TrainingConfig(batch_size=job["batch"], learning_rate=job["learning_rate"])
    config = TrainConfig(name="bench", dataset="-", model=NETWORK, training=settings)
    data = described(Path(job["folder"]))
    with computing(job["threads"]), TemporaryDirectory() as temporary:
        network = train(config, NETWORK, data, Path(temporary), job["seed"], progress=False)
        progress = torch.load(Path(temporary) / "last.pt", weights_only=True)["progress"]
    return {
        "seconds": progress["seconds"],
        "samples": progress["samples"],
        "logloss": progress["history"][-1]["logloss"],
        "parameters": sum(each.numel() for each in network.parameters()),
        "embeddings": network.arena.weight.numel(),
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), flush=True)
