"""One cell of the common-feature benchmark: an epoch over a folder that benchmarks/common_data.py wrote, in a process
of its own.

python -m benchmarks.common_worker FOLDER USERS IMPRESSIONS KIND
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.common_data import described
from models.data.batches import batches
from models.networks.config import DinConfig, MlrConfig
from models.networks.registry import build
from models.numerics import computing

NETWORKS: dict[str, DinConfig | MlrConfig] = {
    "mlr": MlrConfig(kind="mlr"),
    "din": DinConfig(kind="din", embedding=16, attention_hidden=(16, 8), hidden=(64, 32)),
}
BATCH = {"mlr": 8_192, "din": 1_024}
"""Impressions a step. AdamW goes over all rows of the tables at every step, whatever the rows of data look like; LS-PLM
is trained on all data at once, so MLR has the larger ones here."""


def main(folder: Path, users: int, impressions: int, kind: str) -> None:
    """Prints one line of JSON: CPU seconds of a second epoch, and by how many MiB its memory grew at most."""
    data = described(folder, users, impressions)
    torch.manual_seed(0)
    network = build(NETWORKS[kind], data.schema).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from the imports
    before, seconds = _memory("VmRSS"), 0.0
    for _ in range(2):  # the first is warm-up
        started, seen = time.process_time(), 0
        for batch in batches(data, "train", BATCH[kind], seed=0):
            loss = network.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            network.after_step(1e-3)
            seen += len(batch.labels)
        assert seen == impressions
        seconds = time.process_time() - started
    print(json.dumps({"seconds": seconds, "mib": _memory("VmHWM") - before}))


def _memory(line: str) -> float:
    """MiB of `VmRSS`, what is held now, or `VmHWM`, the most that was. OSError where there is no /proc."""
    status = dict(each.split(":", 1) for each in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) / 1024


if __name__ == "__main__":
    with computing(1):
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
