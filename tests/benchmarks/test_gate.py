"""The measurement of the gate on two small bundles: what is measured is what the gate says."""

import argparse
from pathlib import Path

from benchmarks import gate
from tests.service.world import Recipe, make_world


def test_two_small_bundles_are_judged(tmp_path: Path) -> None:
    live = make_world(tmp_path)
    same = make_world(tmp_path, Recipe(bundle_id="same"))
    wrong = make_world(tmp_path, Recipe(bundle_id="wrong", golden_shift=1.0))
    parser = argparse.ArgumentParser()
    gate.add_arguments(parser)
    arguments = parser.parse_args(["--live", str(live), "--new", str(same), str(wrong)])
    arguments.quick = True
    report = gate.run(arguments)
    assert (report.figures["gate.same.passed"], report.figures["gate.wrong.passed"]) == (1, 0)
    assert (report.figures["gate.same.overlap"], report.figures["gate.same.shift"]) == (1, 0)
    assert report.figures["gate.same.latency_ratio"] > 0
    assert report.figures["gate.keep_us"] > 0
    assert [len(table.rows) for table in report.tables] == [14, 7]
    assert report.tables[0].title.startswith("same against world: passed after ")


def test_requests_are_those_that_the_bundle_knows(tmp_path: Path) -> None:
    from bundle.folder import open_bundle
    from service.checks import check_rank
    from service.problem import parse
    from service.schemas import RankRequest
    from tests.service.world import settings_for

    folder = make_world(tmp_path, Recipe(targeting=("scene", "region")))
    bundle = open_bundle(folder)
    made = gate.requests(bundle, 30)
    users = set()
    for body, stored in made:
        request = parse(RankRequest, body)
        check_rank(request, bundle, settings_for(folder))
        assert set(request.context) == {"scene", "region", "hour"}
        assert stored is not None
        users.add(request.user_id)
    assert users == {"anna", "bert", "carl"}
