"""The one training loop: batches in, best checkpoint out.

The order of batches depends on (seed, epoch) alone, so an interrupted run resumes at the step where it stopped and ends
with the same weights as one that was not interrupted.
"""

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.schema import FIRST_KNOWN, UNKNOWN
from models.checkpoint import Checkpoint, first_line, save_state
from models.config import TrainConfig, TrainingConfig
from models.continuing import continue_moments, continue_network
from models.data.batches import Batch, batches, count
from models.data.prepared import PreparedData
from models.embedding_l2 import EmbeddingL2
from models.evaluation import evaluate, network_scorer
from models.networks.config import FmConfig, NetworkConfig
from models.networks.crosses import Crosses
from models.networks.layers import Arena, table_weights
from models.networks.network import Network
from models.networks.registry import build
from models.pretraining import machine_before, pretrain, take_over
from models.rocket import Rocket, files_of, launch, owners
from models.teaching import Lesson, Taught

SAVE_SECONDS = 60.0
"""Progress is written at least this often."""

Watch = Callable[[int, dict[str, float]], None]
"""Told of every evaluation: its number, from 1, and the validation split's metrics. What it raises ends the run."""


class TrainingError(Exception):
    """Training cannot go on. The message says at which step and why."""


@dataclass
class Progress:
    """Where a run stands; everything but tensors that resuming needs."""

    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    seconds: float = 0.0
    samples: int = 0
    best: float = -float("inf")
    stale: int = 0
    """Evaluations since the best one."""
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    config: TrainConfig,
    model: NetworkConfig,
    data: PreparedData,
    folder: Path,
    seed: int,
    *,
    progress: bool = True,
    earlier: Checkpoint | None = None,
    watch: Watch | None = None,
    start: Mapping[str, Tensor] | None = None,
    lesson: Lesson | None = None,
    dense_only: bool = False,
) -> Network:
    """Train until `epochs` or `patience` is used up; the best evaluation's network, also saved as best.pt. A rocket's
    booster (models/rocket.py) is saved beside it, the light net is the network.

    Continues from folder/last.pt when there is one; `watch` is then told of its evaluations again. A new run starts
    from the weights and moments of `earlier` where it is given (models/continuing.py); `data` must then be prepared on
    it. It starts from the weights `start` of the same network where they are given, and learns from the teachers of a
    `lesson` (models/teaching.py); `dense_only`: embedding tables stay as they are. DataError before anything is done
    when a split is empty.
    """
    for split in ("train", "valid"):
        data.parts(split)
    machine = None
    if earlier is None and start is None:
        machine = train_machine(config, model, data, folder / "fm", seed, progress=progress)
    torch.manual_seed(seed)
    with StopRequest() as stop:
        run = _Run(config, model, data, folder, seed, progress, stop, watch, machine, earlier, start, lesson)
        if dense_only:
            run.freeze_tables()
        run.resume()
        while run.progress.epoch < config.training.epochs and run.progress.stale < config.training.patience:
            run.epoch()
    run.served.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    write_log(folder, run.progress)
    return run.served.eval()


def train_machine(
    config: TrainConfig, model: NetworkConfig, data: PreparedData, folder: Path, seed: int, *, progress: bool
) -> Network | None:
    """The factorisation machine to start from, trained in a folder of its own; None where none is asked for."""
    before = machine_before(config, model)
    if before is None:
        return None
    assert isinstance(before.model, FmConfig)
    folder.mkdir(exist_ok=True)
    return train(before, before.model, data, folder, seed, progress=progress)


def write_log(folder: Path, progress: Progress) -> None:
    """One JSON line an evaluation: training.jsonl."""
    (folder / "training.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in progress.history))


class StopRequest:
    """While entered, Ctrl-C and SIGTERM only set `requested`: a run stops between two steps, never inside one."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {each: signal.signal(each, self._request) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    def _request(self, *_: object) -> None:
        self.requested = True


class _Run:
    """The parts of one training run, wired."""

    def __init__(
        self, config: TrainConfig, model: NetworkConfig, data: PreparedData, folder: Path, seed: int, progress: bool,
        stop: "StopRequest", watch: Watch | None, machine: Network | None, earlier: Checkpoint | None,
        start: Mapping[str, Tensor] | None, lesson: Lesson | None,
    ) -> None:  # fmt: skip
        self.settings: TrainingConfig = config.training
        self.stop, self.watch = stop, watch
        self.data, self.folder, self.seed, self.show = data, folder, seed, progress
        self.name = config.name
        self.served = build(model, data.schema)
        self.network: Network | Rocket | Taught = self.served if lesson is None else Taught(self.served, lesson)
        if config.rocket is not None:
            self.network = launch(self.served, config.rocket, data.schema)
        self.network.prepare(data)
        moved = continue_network(self.served, data, earlier) if earlier is not None else {}
        if start is not None:
            self.served.load_state_dict(start)
        elif earlier is None:
            for each in owners(self.network):
                if machine is not None:
                    take_over(each, machine)
                elif self.settings.pretraining is not None:
                    pretrain(each, data, self.settings.pretraining)
        self.averaged = copy.deepcopy(self.network) if self.settings.averaging else None
        if isinstance(self.network, Rocket) and isinstance(self.averaged, Rocket):
            self.network.averaged_in(self.averaged)
        tables = table_weights(self.network)
        dense = [p for p in self.network.parameters() if all(p is not table for table in tables)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": dense, "weight_decay": self.settings.weight_decay},
                {"params": tables, "weight_decay": 0.0},
            ],
            lr=self.settings.learning_rate,
            fused=True,  # one pass over all tables at every step instead of a dozen: 1.0 ms instead of 3.9 on KuaiRand
        )
        if earlier is not None:
            continue_moments(self.optimizer, self.served, earlier, moved)
        strength = self.settings.embedding_l2
        self.l2 = [EmbeddingL2(each, data, strength) for each in owners(self.network)] if strength else []
        self.steps = sum(1 for _ in batches(data, "train", self.settings.batch_size, self._order(0)))
        self.evaluate_at = {
            round(self.steps * (i + 1) / self.settings.evaluations) for i in range(self.settings.evaluations)
        }
        self.progress = Progress()

    def freeze_tables(self) -> None:
        """Embeddings, and weights of single ids and of crosses, learn no more."""
        for module in self.network.modules():
            if isinstance(module, Arena | Crosses):
                module.requires_grad_(False)

    def _order(self, epoch: int) -> int:
        return self.seed * 1_000_003 + epoch

    def epoch(self) -> None:
        """One pass over the training split, from the step where the last run stopped."""
        state = self.progress
        started = saved = time.monotonic()
        bar = tqdm(
            total=count(self.data, "train"), desc=f"{self.name} epoch {state.epoch + 1}", unit="row", unit_scale=True,
            disable=not self.show,
        )  # fmt: skip
        try:
            for step, batch in enumerate(
                batches(self.data, "train", self.settings.batch_size, self._order(state.epoch))
            ):
                if step < state.step:
                    bar.update(len(batch.labels))
                    continue
                loss = self._step(batch)
                state.step, state.samples = step + 1, state.samples + len(batch.labels)
                bar.update(len(batch.labels))
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if state.step in self.evaluate_at:
                    state.seconds += time.monotonic() - started
                    self._evaluate(bar)
                    started = time.monotonic()
                    if state.stale >= self.settings.patience:
                        break
                if self.stop.requested or time.monotonic() - saved > SAVE_SECONDS:
                    state.seconds, started = state.seconds + time.monotonic() - started, time.monotonic()
                    self.save()
                    saved = time.monotonic()
                    if self.stop.requested:  # only now: a step's evaluation is part of it, and is not made up for
                        raise KeyboardInterrupt
            state.epoch, state.step = state.epoch + 1, 0
        finally:
            bar.close()
            state.seconds += time.monotonic() - started
        self.save()

    def _step(self, batch: Batch) -> float:
        settings, state = self.settings, self.progress
        self.network.train()
        if settings.schedule == "cosine":
            done = (state.epoch * self.steps + state.step) / (self.steps * settings.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        batch = hide(batch, settings.unknown_rate, self._order(state.epoch) * self.steps + state.step)
        loss = self.network.loss(batch)
        if not torch.isfinite(loss):
            raise TrainingError(f"epoch {state.epoch + 1}, step {state.step + 1}: the loss is {loss.item()}")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + sum(each.penalty(batch) for each in self.l2))
        nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimizer.step()
        self.network.after_step(self.optimizer.param_groups[0]["lr"])
        if self.averaged is not None:
            average(self.averaged, self.network, settings.averaging, state.epoch * self.steps + state.step)
        return float(loss.detach())

    def _evaluate(self, bar: "tqdm[Any]") -> None:
        state, monitor = self.progress, self.settings.monitor
        network = self.averaged if self.averaged is not None else self.network
        found = evaluate(network_scorer(network), self.data, "valid")
        state.history.append({"epoch": state.epoch + 1, "step": state.step} | found)
        value = -found[monitor] if monitor == "logloss" else found[monitor]
        if math.isnan(value):
            raise TrainingError(f"epoch {state.epoch + 1}, step {state.step}: {monitor} of the validation split is nan")
        if value > state.best:
            state.best, state.stale = value, 0
            for name, each in files_of(network).items():
                save_state(self.folder / name, each.state_dict())
        else:
            state.stale += 1
        if self.show:
            shown = "  ".join(f"{name} {found[name]:.4f}" for name in ("auc", "gauc", "logloss"))
            bar.write(f"  valid after {state.step} steps of epoch {state.epoch + 1}: {shown}")
        if self.watch is not None:
            self.watch(len(state.history), found)

    def save(self) -> None:
        """Everything `resume` needs."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "progress": vars(self.progress),
        }
        save_state(self.folder / "last.pt", state)

    def resume(self) -> None:
        """Take up the run in last.pt, if there is one."""
        path = self.folder / "last.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True)
            self.network.load_state_dict(state["network"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self.progress = Progress(**state["progress"])
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError, UnpicklingError) as error:
            raise TrainingError(f"{path}: not a run to continue: {first_line(error)}; --fresh starts over") from error
        if self.watch is not None:
            for number, entry in enumerate(self.progress.history, 1):
                self.watch(number, entry)


def hide(batch: Batch, rate: float, seed: int) -> Batch:
    """The batch with a share `rate` of its known ids replaced by the unknown."""
    if not rate:
        return batch
    random = torch.Generator().manual_seed(seed)

    def some(ids: Tensor) -> Tensor:
        chosen = (torch.rand(ids.shape, generator=random) < rate) & (ids >= FIRST_KNOWN)
        return ids.masked_fill(chosen, UNKNOWN)

    return replace(
        batch,
        user=some(batch.user),
        context=some(batch.context),
        ads=some(batch.ads),
        histories={name: some(ids) for name, ids in batch.histories.items()},
    )


def average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """averaged <- d·averaged + (1-d)·network, with d rising to `decay` as in a bias-corrected average. What two parts
    of a network share is averaged once; a state_dict would have it twice."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        means, values = ([*each.parameters(), *each.buffers()] for each in (averaged, network))
        for mean, value in zip(means, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)
