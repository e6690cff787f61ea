"""The measurement of eligibility on a small catalogue: what is measured gives what comparing codes gives."""

import argparse

from benchmarks import eligibility


def test_a_small_catalogue_is_measured() -> None:
    parser = argparse.ArgumentParser()
    eligibility.add_arguments(parser)
    arguments = parser.parse_args(["--ads", "2000"])
    arguments.quick = True
    report = eligibility.run(arguments)
    assert sorted(report.figures) == [
        "eligibility.n2000.codes_over_bitmaps",
        "eligibility.n2000.flags_change_ms",
        "eligibility.n2000.p50_ms",
    ]
    assert all(figure > 0 for figure in report.figures.values())
    (table,) = report.tables
    assert len(table.rows) == 9
