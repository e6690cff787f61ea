"""What the peers' programs share: jobs in and results out, the flat rows, and a plain loop over batches made before.

Runs in the peers' own environments, so it imports nothing of ours. A job is one line of JSON on stdin:

    {"folder": DIR, "variant": NAME, "batch": 256, "threads": 1, "learning_rate": 0.001, "seed": 1}

and its answer one line on stdout. What a library prints goes to stderr.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

EMBEDDING, UNIT, HIDDEN, DROPOUT, STD = 16, (64, 32), (256, 128), 0.2, 0.1


def rows(folder, split):
    """The columns of a split: name -> array."""
    with np.load(Path(folder) / "flat.npz", allow_pickle=False) as flat:
        return {name.removeprefix(f"{split}."): flat[name] for name in flat.files if name.startswith(f"{split}.")}


def described(folder):
    """Sizes of the fields' vocabularies, with padding and the unknown, and the history's fields."""
    return json.loads((Path(folder) / "fields.json").read_text())


def answer_jobs(turn):
    """Answer each job by what `turn(job)` returns: `seconds`, `samples`, `logloss`, `parameters`, `embeddings`."""
    out, sys.stdout = sys.stdout, sys.stderr
    torch.set_flush_denormal(True)
    for line in sys.stdin:
        job = json.loads(line)
        torch.set_num_threads(job["threads"])
        torch.manual_seed(job["seed"])
        print(json.dumps(turn(job)), file=out, flush=True)


def batches(rows_of, size, make):
    """Tensors of each batch, in random order: make(columns) of `size` rows."""
    order = np.random.default_rng(0).permutation(len(rows_of["labels"]))
    return [
        make({name: column[order[start : start + size]] for name, column in rows_of.items()})
        for start in range(0, len(order), size)
    ]


def train_plainly(model, loader, learning_rate):
    """Seconds of the plainest loop in torch over batches (x, y) that are made already, with Adam in one pass."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    model.train()
    started = time.perf_counter()
    for x, y in loader:
        loss = torch.nn.functional.binary_cross_entropy(model(x).reshape(-1), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def result(model, seconds, samples, valid):
    """A job's answer; `valid`: batches (x, y) of the validation split."""
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(x).reshape(-1) for x, _ in valid])
    labels = torch.cat([y for _, y in valid])
    embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return {
        "seconds": seconds,
        "samples": samples,
        "logloss": float(torch.nn.functional.binary_cross_entropy(scores.clamp(1e-7, 1 - 1e-7), labels)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "embeddings": sum(m.weight.numel() for m in embeddings),
    }
