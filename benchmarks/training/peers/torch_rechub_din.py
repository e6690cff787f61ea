"""torch-rechub's DIN.

library: as its documentation trains it (https://datawhalechina.github.io/torch-rechub/): DataGenerator's loader and
         CTRTrainer, Adam without weight decay, as everybody's here.
lean:    the same network in a plain loop over batches made before, with Adam in one pass.

It has an activation unit for each field of the history, and batch normalisation before every Dice.
"""

import time

import torch
import turns
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.ranking import DIN
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator


def network(told):
    """The library's DIN with our sizes."""
    sizes, normal = told["fields"], RandomNormal(0, turns.STD)

    def sparse(name):
        return SparseFeature(name, vocab_size=sizes[name], embed_dim=turns.EMBEDDING, initializer=normal, padding_idx=0)

    history = [
        SequenceFeature(
            f"history.{name}".replace(".", "_"), vocab_size=sizes[name], embed_dim=turns.EMBEDDING, pooling="concat",
            shared_with=name, padding_idx=0,
        )
        for name in told["history"]
    ]  # fmt: skip
    targets = [sparse(name) for name in told["history"]]
    others = [sparse(name) for name in sizes if name not in told["history"]]
    mlp = {"dims": list(turns.HIDDEN), "dropout": turns.DROPOUT}
    return DIN(others, history, targets, mlp, {"dims": list(turns.UNIT), "activation": "dice"})


def columns(rows):
    """The library's inputs: a column a feature; a module's name has no dot."""
    return {name.replace(".", "_"): values for name, values in rows.items() if name not in ("length", "labels")}


def tensors(rows):
    """x and y of one batch."""
    x = {name: torch.from_numpy(values) for name, values in columns(rows).items()}
    return x, torch.from_numpy(rows["labels"])


def turn(job):
    """One epoch."""
    model = network(turns.described(job["folder"]))
    rows, valid = (turns.rows(job["folder"], split) for split in ("train", "valid"))
    if job["variant"] == "library":
        settings = {"lr": job["learning_rate"], "weight_decay": 0.0}
        trainer = CTRTrainer(model, optimizer_params=settings, n_epoch=1)
        generator = DataGenerator(columns(rows), rows["labels"])
        loader, _, _ = generator.generate_dataloader(
            x_val=columns(valid), y_val=valid["labels"], x_test=columns(valid), y_test=valid["labels"],
            batch_size=job["batch"],
        )  # fmt: skip
        started = time.perf_counter()
        trainer.train_one_epoch(loader)
        seconds = time.perf_counter() - started
    else:
        seconds = turns.train_plainly(model, turns.batches(rows, job["batch"], tensors), job["learning_rate"])
    return turns.result(model, seconds, len(rows["labels"]), turns.batches(valid, 1_024, tensors))


if __name__ == "__main__":
    turns.answer_jobs(turn)
