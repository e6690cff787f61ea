"""A search for a recipe: what it combines, what it keeps, how it goes on, and that the test split stays unread."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from export.assemble import Trained
from models.compression import pipeline, search
from models.compression.choices import Settings, forms_of, is_whole, recipe_of
from models.compression.pipeline import Compressed
from models.compression.search import Candidate, Search, best_of, front
from models.compression.subject import Subject
from models.compression.target import read_target
from models.config import ConfigError
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from tests.market import Market


def wanted(market: Market, trained: Trained, text: str = "bytes<=0.9 dgauc>=-0.5", trials: int = 8) -> Search:
    return Search(trained.finerank, market.data, read_target(text), 1, trials=trials, survivors=2, tunings=3)


def run(made: Search, folder: Path) -> tuple[list[Candidate], list[str]]:
    said: list[str] = []
    return search.search(made, folder, said.append, progress=False), said


def test_a_search_leaves_candidates_within_the_sizes(market: Market, trained: Trained, tmp_path: Path) -> None:
    found, said = run(wanted(market, trained), tmp_path)
    assert len(found) == 3
    assert len({each.name for each in found}) == 3
    assert all(each.figures["bytes"] <= 0.9 for each in found)
    assert all((each.folder / "compression.json").exists() for each in found)
    assert sum(line.startswith("[") for line in said) == 8 + 3
    best = best_of(found, read_target("dgauc>=-0.5"))
    assert best.figures["dgauc"] == max(each.figures["dgauc"] for each in found)


def test_a_search_goes_on_and_comes_to_the_same(
    market: Market, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(wanted(market, trained), tmp_path / "whole")
    made = pipeline.compress
    calls = 0

    def cut(*arguments: object, **named: object) -> Compressed:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return made(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "compress", cut)
    with pytest.raises(KeyboardInterrupt):
        run(wanted(market, trained), tmp_path / "cut")
    found, said = run(wanted(market, trained), tmp_path / "cut")
    assert [each.name for each in found] == [each.name for each in whole]
    assert [each.figures for each in found] == [each.figures for each in whole]
    assert sum(line.startswith("[") for line in said) == 3  # no estimate was made again


def test_the_test_split_is_not_read_while_searching(
    market: Market, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    def watched(data: PreparedData, split: str, size: int) -> Iterator[Batch]:
        read.add(split)
        return batches(data, split, size)

    monkeypatch.setattr(search, "batches", watched)
    run(wanted(market, trained, trials=2), tmp_path)
    assert read == {"valid"}


def test_another_search_in_the_folder_is_refused(market: Market, trained: Trained, tmp_path: Path) -> None:
    run(wanted(market, trained, trials=2), tmp_path)
    with pytest.raises(ConfigError, match="holds a search with another sizes; --fresh starts over"):
        run(wanted(market, trained, "bytes<=0.5", trials=2), tmp_path)


def test_nothing_small_enough_is_said(market: Market, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 3 candidates is as small as bytes<=0\.001"):
        run(wanted(market, trained, "bytes<=0.001", trials=3), tmp_path)


def test_forms_become_a_recipe_in_order(trained: Trained) -> None:
    forms = forms_of(Subject(trained.finerank.config, trained.finerank.network()))
    assert forms["attention"] == ("whole", "3-1", "2-1")  # of 6-3: at least 2 and 1
    assert forms["hidden"] == ("whole", "6-3", "3-1")
    smallest = {part: names[-1] for part, names in forms.items()}
    recipe = recipe_of(smallest, "small", Settings())
    assert [step.step for step in recipe.steps] == ["prune", "factorise", "fine_tune", "values"]
    assert [step.step for step in recipe_of(smallest, "small").steps] == ["prune", "factorise", "values"]
    first = {part: names[0] for part, names in forms.items()}
    assert is_whole(first)
    assert not is_whole(smallest)


def test_the_front_has_what_no_other_beats(market: Market, trained: Trained, tmp_path: Path) -> None:
    found = pipeline.compress(
        trained.finerank,
        recipe_of({"tables": "fp32"}, "t", Settings(0.0, 1e-3, True)),
        market.data,
        tmp_path,
        1,
        progress=False,
    )

    def candidate(name: str, size: float, gauc: float) -> Candidate:
        return Candidate(name, tmp_path, found, {"bytes": size, "macs": 0.5, "dgauc": gauc})

    small, good, beaten = candidate("s", 0.1, -0.01), candidate("g", 0.3, 0.0), candidate("b", 0.4, -0.005)
    assert [each.name for each in front([small, beaten, good])] == ["s", "g"]
    assert [each.name for each in front([small, good, replace(small, name="again")])] == ["s", "g"], "equal ones once"
    assert best_of([small, beaten, good], read_target("dgauc>=0")).name == "g"
    assert best_of([small, beaten, good], read_target("bytes<=0.2")).name == "s"
