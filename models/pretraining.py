"""What a network starts from: co-occurrence in histories, or a factorisation machine that was trained first.

Ad embeddings before the first click: which ads stand together in users' histories.

C = Σ over histories of 1/length · (pairs of different ads in it)
PPMI(i, j) = max(0, log C_ij·Σs / (s_i·s_j)),  s_i = Σ_j C_ij,  with s_j ** 0.75 for the context (Levy, Goldberg
              and Dagan, TACL 2015: PPMI with context distribution smoothing, then SVD)
start = U·√S of its truncated SVD, scaled to a given spread

The factorisation machine is trained by the same loop, into the folder `fm` of the run (arXiv 1601.02376, section 3.1).
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.sparse.linalg import svds

from bundle.schema import FIRST_KNOWN, FieldSpec, HistorySpec
from models.config import ConfigError, Pretraining, TrainConfig
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.networks.config import EmbeddedConfig, FmConfig, NetworkConfig
from models.networks.layers import table_of
from models.networks.network import Network

CONTEXT_EXPONENT = 0.75


SHARED = ("arena.", "vectors.", "first_order.", "position.")
"""Parameters that mean the same in a factorisation machine and in the networks that have them."""


def machine_before(config: TrainConfig, model: NetworkConfig) -> TrainConfig | None:
    """The factorisation machine that is to be trained before `model`, with the same settings but the epochs; None
    where none is asked for. ConfigError when it would have nothing to hand over."""
    settings = config.training.pretraining
    if settings is None or not settings.fm_epochs:
        return None
    if not isinstance(model, EmbeddedConfig):
        raise ConfigError(
            f"training.pretraining: fm_epochs is {settings.fm_epochs}, a {model.kind} has no embeddings to start"
        )
    if config.rocket is not None and not config.rocket.share:
        booster = config.rocket.booster
        if not isinstance(booster, EmbeddedConfig) or booster.embedding != model.embedding:
            found = f"has {booster.embedding}" if isinstance(booster, EmbeddedConfig) else f"is a {booster.kind}"
            raise ConfigError(
                f"training.pretraining: fm_epochs is {settings.fm_epochs}: both networks start from one machine of "
                f"model.embedding {model.embedding}, rocket.booster {found}"
            )
    from_history = settings.model_copy(update={"fm_epochs": 0}) if settings.history is not None else None
    machine = FmConfig(
        kind="fm",
        embedding=model.embedding,
        embedding_std=model.embedding_std,
        position_bias=model.position_bias,
        tables=model.tables,
        dropped_fields=model.dropped_fields,
    )
    training = config.training.model_copy(update={"epochs": settings.fm_epochs, "pretraining": from_history})
    return config.model_copy(
        update={"name": f"{config.name}-fm", "model": machine, "training": training, "rocket": None}
    )


def take_over(network: Network, machine: Network) -> None:
    """Start `network` from all that it shares with a trained factorisation machine: embeddings, and where it has them
    first-order weights, vectors of numbers and the bias of the position."""
    mine = network.state_dict()
    for name, value in machine.state_dict().items():
        if name.startswith(SHARED) and name in mine:
            mine[name].copy_(value)


def require_pretraining(network: Network, settings: Pretraining) -> tuple[HistorySpec, FieldSpec]:
    """The history to start from and the field whose table starts. ConfigError when the network has no such ones."""
    schema = network.schema
    history = next((each for each in schema.histories if each.name == settings.history), None)
    if history is None or settings.field not in history.fields:
        known = ", ".join(f"{each.name}: {'/'.join(each.fields)}" for each in schema.histories) or "none"
        raise ConfigError(
            f"training.pretraining: there is no field {settings.field!r} in a history {settings.history!r}, "
            f"known: {known}"
        )
    field = next(each for each in schema.ad.id_fields if each.name == settings.field)
    if field.vector:
        raise ConfigError(f"training.pretraining: field {field.name!r} has vectors, not embeddings")
    if field.width != 1:
        raise ConfigError(f"training.pretraining: field {field.name!r} has several values")
    if not network.arena.shared:
        raise ConfigError(
            f"training.pretraining: behaviours and ads share no {field.name!r} embeddings in this kind of model"
        )
    if table_of(field) not in network.arena.starts:
        raise ConfigError(
            f"training.pretraining: the ids of {table_of(field)!r} have no rows of their own to start: model.tables "
            "or model.dropped_fields says so"
        )
    return history, field


def pretrain(network: Network, data: PreparedData, settings: Pretraining) -> None:
    """Start one table from co-occurrence in the training users' histories. ConfigError when it cannot be."""
    history, field = require_pretraining(network, settings)
    column = data.schema.history_columns(history).index(data.schema.ad.columns_of(field.name).start)
    latest: dict[int, npt.NDArray[np.int64]] = {}
    for batch in batches(data, "train", 65_536):
        ids = batch.histories[history.name][..., column].numpy()
        users = batch.users[np.searchsorted(batch.request.numpy(), np.arange(len(ids)))]
        latest |= {user: row[row >= FIRST_KNOWN] for user, row in zip(users.tolist(), ids, strict=True)}
    try:
        start = cooccurrence_embeddings(list(latest.values()), field.size, network.arena.dimension, settings.std)
    except ValueError as error:
        raise ConfigError(f"training.pretraining: field {field.name!r}: {error}") from error
    first = network.arena.starts[table_of(field)] + FIRST_KNOWN
    with torch.no_grad():
        found = torch.from_numpy(start[FIRST_KNOWN:])
        rows = network.arena.weight[first : first + len(found)]
        rows.copy_(torch.where(found.abs().sum(1, keepdim=True) > 0, found, rows))


def cooccurrence_embeddings(
    histories: list[npt.NDArray[np.int64]], size: int, dimension: int, std: float, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Start values float32[size, dimension] of ids 0..size-1; `histories` are lists of ids, each list one user's.

    Ids that stand in no history keep 0. The spread of the others is `std`. ValueError when there are too few ids.
    """
    lengths = np.array([len(ids) for ids in histories if len(ids)])
    flat = np.concatenate([ids for ids in histories if len(ids)]) if len(lengths) else np.empty(0, np.int64)
    if len(np.unique(flat)) <= dimension:
        raise ValueError(f"{len(np.unique(flat))} different ids in the histories, more than {dimension} are needed")
    user = np.repeat(np.arange(len(lengths)), lengths)
    weight = 1.0 / np.sqrt(np.repeat(lengths, lengths))
    holds = sparse.csr_array((weight, (user, flat)), shape=(len(lengths), size))
    together = (holds.T @ holds).tocoo()
    apart = together.row != together.col
    row, col, value = together.row[apart], together.col[apart], together.data[apart]
    if len(value) <= dimension:
        raise ValueError(f"{len(value)} pairs of different ids stand in one history, more than {dimension} are needed")
    total = np.bincount(row, weights=value, minlength=size)
    context = total**CONTEXT_EXPONENT
    ppmi = np.maximum(np.log(value * context.sum() / (total[row] * context[col])), 0.0)
    start = np.random.default_rng(seed).normal(size=size)
    u, s, _ = svds(sparse.csr_array((ppmi, (row, col)), shape=(size, size)), k=dimension, v0=start)
    found = u * np.sqrt(s)
    return np.asarray(found * (std / found[total > 0].std()), dtype=np.float32)
