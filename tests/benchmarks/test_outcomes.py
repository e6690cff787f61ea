"""The measurement of the log of answers on a few of them."""

import argparse

from benchmarks import outcomes


def test_a_few_answers_are_measured() -> None:
    parser = argparse.ArgumentParser()
    outcomes.add_arguments(parser)
    arguments = parser.parse_args(["--answers", "200"])
    arguments.quick = True
    report = outcomes.run(arguments)
    assert sorted(report.figures) == [
        "outcomes.add_us",
        "outcomes.answers_per_s",
        "outcomes.disk_bytes",
        "outcomes.entry_bytes",
        "outcomes.write_us",
    ]
    assert all(figure > 0 for figure in report.figures.values())
