"""A network that goes on from an earlier checkpoint: what belongs to a value stays with it, whatever its id is now.

Rows of embedding tables move by value: the new id of an old value has the old row, and so have padding and unknown.
The row of a new value is a copy of its table's unknown, which is what the earlier network took it for. So before the
first step the network gives every request, new values or not, the score that the earlier one gives it. All other
parameters and buffers are copied.

AdamW's moments move in the same way; those of a new value are zero, and `step`, one number a table, goes on. So a new
value starts like one whose first row comes late in a long run: with m = (1 - β₁)g, v = (1 - β₂)g² and no correction of
bias left, its first step is (1 - β₁)/√(1 - β₂) = 3.2 learning rates long.

A module whose state is neither an Arena's nor independent of ids says so by an attribute `continuing`: "counted" is
counted from the data when the network is built and stays as it is, "by id" addresses rows by ids themselves (hashed
pairs of ids, for example) and is refused once a vocabulary has changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bundle.encoding import Encoder
from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN, PADDING, UNKNOWN
from bundle.vocabulary import Vocabulary
from models.checkpoint import Checkpoint, first_line
from models.config import ConfigError, TrainConfig
from models.data.base import Base
from models.data.prepared import PreparedData
from models.networks.config import QscoreConfig
from models.networks.layers import Arena
from models.networks.network import Network


@dataclass(frozen=True, slots=True)
class Rows:
    """How the rows of one embedding table array stand to those of the earlier network's."""

    old: Tensor
    """int64[rows]: the earlier row that each row continues."""
    new: Tensor
    """bool[rows]: rows of values that the earlier network did not know."""


def base_of(checkpoint: Checkpoint) -> Base:
    """The features of a checkpoint, for new data to be prepared on. ConfigError when its vocabularies are not there."""
    folder = checkpoint.folder / "vocabulary"
    try:
        vocabularies = {path.stem: Vocabulary.load(path) for path in sorted(folder.glob("*.npy"))}
        Encoder(checkpoint.schema, vocabularies)
    except ContractError as error:
        raise ConfigError(
            f"{folder}: not the vocabularies that {checkpoint.folder} was trained with: {error}"
        ) from error
    return Base(str(checkpoint.folder), checkpoint.schema, vocabularies)


def identity(config: TrainConfig, earlier: Checkpoint | None) -> dict[str, str] | None:
    """What tells the checkpoint that a run goes on from apart from others: hashes of weights and moments.

    None where nothing is taken over: a Qscore is counted anew, its vocabularies are part of the data's fingerprint.
    """
    if earlier is None or isinstance(config.model, QscoreConfig):
        return None
    return {name: _hash(earlier.folder / name) for name in ("best.pt", "last.pt")}


def require_continuable(config: TrainConfig, earlier: Checkpoint, folders: Sequence[Path]) -> None:
    """ConfigError when runs of `config` in these folders cannot go on from `earlier`."""
    for out in folders:
        if out.resolve() == earlier.folder.resolve():
            raise ConfigError(f"{out} is the checkpoint to continue from, and would be replaced; choose another --out")
    if config.rocket is not None:
        raise ConfigError("a rocket starts anew: moments of its booster are not continued; leave out --continue-from")
    kind, before = config.model.kind, earlier.config.model.kind
    if kind not in (before, "qscore"):
        raise ConfigError(f"model.kind is {kind!r}, {earlier.folder} is a {before!r}")


def continue_network(network: Network, data: PreparedData, earlier: Checkpoint) -> dict[str, Rows]:
    """Give a freshly built network the weights and buffers of `earlier`: by parameter, how the rows of tables moved.

    ConfigError names the parameter that only one of the two has, or whose shape differs, and the module that cannot
    follow its ids; also data that were not prepared on the checkpoint.
    """
    old, base = earlier.network(), base_of(earlier)
    _require_prepared_on(base, data)
    counted = _left_alone(network, base, data)
    moved = _moves(network, old, data, base)
    target = {name: value for name, value in network.state_dict().items() if not name.startswith(counted)}
    source = {name: value for name, value in old.state_dict().items() if not name.startswith(counted)}
    if different := sorted(target.keys() ^ source.keys()):
        has = "this configuration" if different[0] in target else str(earlier.folder)
        raise ConfigError(f"only {has} has a parameter {different[0]!r}: not the same network")
    with torch.no_grad():
        for name, value in target.items():
            found = source[name]
            if name in moved:
                found = found[moved[name].old]
            if found.shape != value.shape:
                raise ConfigError(f"{name} is {list(value.shape)}, in {earlier.folder} {list(found.shape)}")
            value.copy_(found)
    return moved


def continue_moments(
    optimizer: torch.optim.Optimizer, network: Network, earlier: Checkpoint, moved: Mapping[str, Rows]
) -> None:
    """Give the optimiser of `network` the moments in last.pt. ConfigError when they are not there or do not fit."""
    path = earlier.folder / "last.pt"
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    order = [names[id(each)] for group in optimizer.param_groups for each in group["params"]]
    try:
        state = torch.load(path, weights_only=True)
        saved, before = state["optimizer"], state["network"]
        kept: dict[int, dict[str, Tensor]] = saved["state"]
        count = sum(len(group["params"]) for group in saved["param_groups"])
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, UnpicklingError) as error:
        raise ConfigError(f"{path}: holds no moments to continue with: {first_line(error)}") from error
    if count != len(order):
        raise ConfigError(f"{path}: has moments of {count} parameters, the network has {len(order)}")
    state = {index: _moments(path, order[index], each, before, moved) for index, each in kept.items()}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _moments(
    path: Path, name: str, kept: Mapping[str, Tensor], before: Mapping[str, Tensor], moved: Mapping[str, Rows]
) -> dict[str, Any]:
    """The moments of one parameter, moved where it is a table; numbers such as `step` as they are."""
    found: dict[str, Any] = {}
    for key, value in kept.items():
        if value.dim() and (name not in before or value.shape != before[name].shape):
            raise ConfigError(f"{path}: {key} of {name} is {list(value.shape)}, which does not fit its weights")
        if value.dim() and name in moved:
            rows = moved[name]
            found[key] = value[rows.old].masked_fill(rows.new.unsqueeze(-1), 0.0)
        else:
            found[key] = value
    return found


def _require_prepared_on(base: Base, data: PreparedData) -> None:
    """ConfigError when ids or numbers of the data do not mean what they meant."""
    for side in ("user", "context", "ad"):
        now = {field.name: field for field in getattr(data.schema, side).fields}
        for field in getattr(base.schema, side).fields:
            found = now.get(field.name)
            if found is None or (field.vocabulary is None and found != field):
                raise ConfigError(
                    f"{data.folder}: {side} field {field.name!r} is not that of {base.origin}, on which the data must "
                    "be prepared"
                )
    for name, vocabulary in base.vocabularies.items():
        if lost := np.setdiff1d(vocabulary.values, data.vocabularies[name].values).tolist():
            value = vocabulary.value_of(vocabulary.id_of(lost[0]))
            raise ConfigError(
                f"{data.folder}: vocabulary {name!r} lacks {value!r} of {base.origin}, on which the data must be "
                "prepared"
            )


def _left_alone(network: Network, base: Base, data: PreparedData) -> tuple[str, ...]:
    """Beginnings of the names of what is counted from data. ConfigError for rows of ids that cannot move."""
    before, now = base.vocabularies, data.vocabularies
    grown = [name for name in now if not np.array_equal(now[name].values, before[name].values)]
    counted = []
    for name, module in network.named_modules():
        kept = getattr(module, "continuing", None)
        if kept == "by id" and grown:
            raise ConfigError(
                f"{name}: its rows are those of ids, which changed: vocabulary {grown[0]!r} has "
                f"{len(now[grown[0]])} values, in {base.origin} {len(before[grown[0]])}"
            )
        if kept == "counted":
            counted.append(f"{name}.")
    return tuple(counted)


def _moves(network: Network, old: Network, data: PreparedData, base: Base) -> dict[str, Rows]:
    """How the rows of each arena move, by the name of its parameter."""
    earlier = {name: module for name, module in old.named_modules() if isinstance(module, Arena)}
    return {
        f"{name}.weight": _rows(module, earlier[name], data.vocabularies, base.vocabularies)
        for name, module in network.named_modules()
        if isinstance(module, Arena) and name in earlier
    }


def _rows(arena: Arena, old: Arena, vocabularies: Mapping[str, Vocabulary], before: Mapping[str, Vocabulary]) -> Rows:
    rows = np.zeros(len(arena.weight), dtype=np.int64)
    rows[PADDING] = PADDING
    new = np.zeros(len(rows), dtype=np.bool_)
    for table, start in arena.starts.items():
        if table not in old.starts:
            raise ConfigError(f"model.tables: the earlier network has no rows like those of table {table!r}")
        field, was = arena.fields[table], old.fields[table]
        ids = np.arange(field.size)
        if field.vocabulary is not None and was.vocabulary is not None:
            ids[FIRST_KNOWN:] = before[was.vocabulary].ids_of(vocabularies[field.vocabulary].values)
            new[start + FIRST_KNOWN : start + field.size] = ids[FIRST_KNOWN:] == UNKNOWN
        rows[start + UNKNOWN : start + field.size] = old.starts[table] + ids[UNKNOWN:]
    return Rows(torch.from_numpy(rows), torch.from_numpy(new))


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; a finished run is needed to continue") from error
