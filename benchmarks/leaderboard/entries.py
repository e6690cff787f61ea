"""Which models take part: the configurations of one data set."""

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from models.config import ConfigError, TrainConfig, read_config

CONFIGS = Path(__file__).parents[2] / "models/configs"


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration."""

    path: Path
    config: TrainConfig
    model: str
    """Its name without the data set's: `din-live` of `kuairand-din-live`."""


def find_entries(dataset: str, patterns: list[str] | None, reference: str) -> list[Entry]:
    """The configurations that match any of `patterns` (None: those of the project), by file name.

    ConfigError when a pattern matches nothing, a configuration cannot be used, its name does not begin with the data
    set's or is there twice, or the reference is missing.
    """
    paths: set[Path] = set()
    for pattern in patterns or [str(CONFIGS / f"{dataset}-*.yaml")]:
        found = glob(pattern)  # noqa: PTH207  what a user writes may be absolute, which Path.glob refuses
        if not found:
            raise ConfigError(f"{pattern}: there is no such configuration")
        paths |= set(map(Path, found))
    entries = [_entry(path, dataset) for path in sorted(paths)]
    by_model: dict[str, Entry] = {}
    for entry in entries:
        if other := by_model.get(entry.model):
            raise ConfigError(f"{entry.path}: the name {entry.config.name!r} is also that of {other.path}")
        by_model[entry.model] = entry
    if reference not in by_model:
        raise ConfigError(f"the reference {reference!r} is not among the models: {', '.join(by_model)}")
    return entries


def _entry(path: Path, dataset: str) -> Entry:
    config = read_config(path)
    model = config.name.removeprefix(f"{dataset}-")
    if model == config.name:
        raise ConfigError(f"{path}: the name {config.name!r} does not begin with {dataset}-")
    return Entry(path, config, model)
