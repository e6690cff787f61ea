"""DeepCTR-Torch's DIN.

library: as its documentation trains it (https://deepctr-torch.readthedocs.io/en/latest/Quick-Start.html): compile with
         Adam and fit, without metrics, which it would compute at every step, and without L2, as everybody's here.
lean:    the same network in a plain loop over batches made before, with Adam in one pass.

Dice is in its activation unit only: above, its DNN makes Dice for three dimensions and then gets two, so it has ReLU.
"""

import time

import numpy as np
import torch
import turns
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat, get_feature_names
from deepctr_torch.models import DIN


def network(told):
    """The library's DIN with our sizes."""
    sizes = told["fields"]
    features = [SparseFeat(name, size, embedding_dim=turns.EMBEDDING) for name, size in sizes.items()]
    features += [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", sizes[name], embedding_dim=turns.EMBEDDING, embedding_name=name),
            maxlen=told["longest"], length_name="length",
        )
        for name in told["history"]
    ]  # fmt: skip
    return DIN(
        features, list(told["history"]), dnn_hidden_units=turns.HIDDEN, dnn_activation="relu",
        att_hidden_size=turns.UNIT, att_activation="Dice", l2_reg_embedding=0.0, dnn_dropout=turns.DROPOUT,
        init_std=turns.STD,
    ), features  # fmt: skip


def inputs(rows, names):
    """The library's inputs: a column a feature, in its order."""
    return {name: rows[name.replace("hist_", "history.")] for name in names}


def turn(job):
    """One epoch."""
    model, features = network(turns.described(job["folder"]))
    names = get_feature_names(features)
    rows, valid = (turns.rows(job["folder"], split) for split in ("train", "valid"))

    def tensors(part):
        found = [each.reshape(len(each), -1) for each in inputs(part, names).values()]
        return torch.from_numpy(np.concatenate(found, axis=1)).float(), torch.from_numpy(part["labels"])

    if job["variant"] == "library":
        model.compile(torch.optim.Adam(model.parameters(), lr=job["learning_rate"]), "binary_crossentropy")
        started = time.perf_counter()
        model.fit(inputs(rows, names), rows["labels"], batch_size=job["batch"], epochs=1, verbose=0, shuffle=True)
        seconds = time.perf_counter() - started
    else:
        seconds = turns.train_plainly(model, turns.batches(rows, job["batch"], tensors), job["learning_rate"])
    return turns.result(model, seconds, len(rows["labels"]), turns.batches(valid, 1_024, tensors))


if __name__ == "__main__":
    turns.answer_jobs(turn)
