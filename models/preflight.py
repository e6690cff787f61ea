"""What is refused before training starts: what a configuration asks of a dataset that does not have it, and splits that
nothing can be learnt from or chosen on.

The first needs no data. A network names the fields it lacks when it is built, so each is built on an outline of the
dataset's description: all fields, with two or three values each.
"""

from collections.abc import Sequence

import numpy as np

from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from models.config import ConfigError, RocketConfig, TrainConfig
from models.data.batches import batches, count
from models.data.context_values import require_context_field
from models.data.description import check_description
from models.data.prepared import PreparedData
from models.data.spec import CLICK, DataError, DatasetSpec, FeatureColumn
from models.networks.config import EmbeddedConfig, NetworkConfig, QscoreConfig
from models.networks.registry import build
from models.pretraining import machine_before, require_pretraining
from models.rocket import launch, owners

OUTLINED_VALUES = 3
"""Known values of a field in an outline."""


def outline(spec: DatasetSpec) -> FeatureSchema:
    """The schema that the description leads to, but for what is fitted to data: values, edges, means. DataError when
    the description contradicts itself."""
    check_description(spec)

    def side(features: Sequence[FeatureColumn]) -> Side:
        return Side(fields=tuple(_field(feature) for feature in features))

    return FeatureSchema(
        user_key=spec.user,
        ad_key=spec.ad,
        user=side(spec.user_features),
        context=side(spec.context_features),
        ad=side(spec.ad_features),
        histories=tuple(
            HistorySpec(name=h.name, fields=h.fields, of_ads=h.of_ads, max_length=h.max_length, events=h.events)
            for h in spec.histories
        ),
    )


def _field(feature: FeatureColumn) -> FieldSpec:
    name, kind = feature.column, feature.kind
    if kind is Kind.NUMBER:
        return FieldSpec(name=name, kind=kind)
    if kind is Kind.BUCKETED:
        return FieldSpec(name=name, kind=kind, edges=(0.0,), size=FIRST_KNOWN + 2)
    size = FIRST_KNOWN + OUTLINED_VALUES
    vector = 1 if feature.vectors else 0  # how wide they are, the files say
    return FieldSpec(name=name, kind=kind, vocabulary=name, size=size, width=feature.max_values, vector=vector)


def require_fields(config: TrainConfig, spec: DatasetSpec, source: str) -> None:
    """ConfigError when the configuration names a field, a history or a scene that the dataset does not have, with the
    configuration's `source` in front; DataError when the description contradicts itself."""
    schema, settings = outline(spec), config.training.pretraining
    try:
        if config.training.only is not None:
            _require_only(schema, config.training.only.field)
        if isinstance(config.model, QscoreConfig):
            return
        machine_before(config, config.model)
        network = build(_outlined(config.model), schema)
        trained = network if config.rocket is None else launch(network, _outlined_rocket(config.rocket), schema)
        if settings is not None and settings.history is not None:
            for each in owners(trained):
                require_pretraining(each, settings)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{source}: {error} (dataset {spec.name!r})") from error


def _outlined(model: NetworkConfig) -> NetworkConfig:
    """The same, with one row in tables whose ids share rows: how many there may be, the data say."""
    if not isinstance(model, EmbeddedConfig):
        return model
    tables = {name: each.model_copy(update={"rows": each.rows and 1}) for name, each in model.tables.items()}
    return model.model_copy(update={"tables": tables})


def _outlined_rocket(rocket: RocketConfig) -> RocketConfig:
    assert not isinstance(rocket.booster, QscoreConfig), "refused with the configuration"
    return rocket.model_copy(update={"booster": _outlined(rocket.booster)})


def _require_only(schema: FeatureSchema, field: str) -> None:
    try:
        require_context_field(schema, field)
    except DataError as error:
        raise ConfigError(f"training.only.field: {error}") from error


def require_splits(config: TrainConfig, data: PreparedData) -> None:
    """DataError when training or validation rows are missing, or a split has one class only: it cannot be measured,
    which would otherwise show when all training is done."""
    named = data.prepared.spec.label if data.label == CLICK else data.label
    for split in ("train", "valid", "test"):
        impressions, clicks = _size(data, split)
        if not impressions:
            if split == "test":
                continue
            raise DataError(
                f"{data.folder}: split {split!r} is empty; in the dataset's YAML split.valid_from and split.test_from "
                f"say when validation and test begin, they are {data.prepared.spec.split.valid_from} and "
                f"{data.prepared.spec.split.test_from}"
            )
        if not 0 < clicks < impressions:
            raise DataError(
                f"{data.folder}: split {split!r} has {clicks} of {impressions} impressions with the label "
                f"{named!r}; some with and some without are needed"
            )
    if config.training.monitor == "gauc" and not _users_with_both(data):
        raise DataError(
            f"{data.folder}: no user of split 'valid' has both clicks and non-clicks, so there is no GAUC, which "
            "training.monitor asks for"
        )


def _size(data: PreparedData, split: str) -> tuple[int, int]:
    """Impressions and clicks of what is read of a split."""
    stored = data.prepared.splits[split]
    if data.only is None and (data.since is None or split != "train"):
        return stored.impressions, stored.clicks if data.label == CLICK else stored.further[data.label]
    impressions = count(data, split)
    if not impressions:
        return 0, 0
    return impressions, round(sum(float(batch.labels.sum()) for batch in batches(data, split, 65_536)))


def _users_with_both(data: PreparedData) -> int:
    """Users of the validation split with both classes."""
    users = np.concatenate([batch.users for batch in batches(data, "valid", 65_536)])
    labels = np.concatenate([batch.labels.numpy() for batch in batches(data, "valid", 65_536)])
    _, group = np.unique(users, return_inverse=True)
    rate = np.bincount(group, weights=labels) / np.bincount(group)
    return int(((rate > 0) & (rate < 1)).sum())
