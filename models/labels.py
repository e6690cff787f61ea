"""Which label of an impression a run learns, chooses by and reports: the click, or a further one of the dataset."""

from dataclasses import replace

from models.config import TrainConfig
from models.data.prepared import PreparedData
from models.data.spec import CLICK, DataError
from models.networks.config import MtlConfig


def labelled(config: TrainConfig, data: PreparedData) -> PreparedData:
    """The data as a run of `config` reads them: its label is that of the batches.

    DataError when the data have no such label, or none like that of the related task, or when no impression to learn
    from or to choose on has it.
    """
    require_label(data, config.training.label)
    if isinstance(config.model, MtlConfig) and config.model.related is not None:
        require_label(data, config.model.related.label)
    return replace(data, label=config.training.label)


def require_label(data: PreparedData, name: str) -> None:
    """DataError unless the data have impressions with this label, in the training and in the validation split."""
    known = [CLICK, *data.prepared.spec.labels]
    if name not in known:
        raise DataError(f"{data.folder}: there is no label {name!r}, known: {', '.join(known)}")
    for split in ("train", "valid") if name != CLICK else ():
        size = data.prepared.splits[split]
        if size.impressions and not size.further[name]:
            raise DataError(f"{data.folder}: no impression of split {split!r} has the label {name!r}")


def prefix_of(config: TrainConfig) -> str:
    """What the keys of a run's metrics begin with: `like.` for the label like, nothing for the click."""
    return "" if config.training.label == CLICK else f"{config.training.label}."
