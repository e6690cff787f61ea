"""The measurement of user features on a small catalogue, against a real Redis."""

import argparse

import numpy as np

from benchmarks import features
from benchmarks.work import HISTORY, HISTORY_NAME
from bundle.record import pack, unpack
from bundle.schema import FIRST_KNOWN
from service.encode import encode_common


def test_what_is_encoded_is_the_user_that_was_made() -> None:
    bundle, record = features.make_bundle(1000), features.make_record(1000)
    assert unpack(pack(record)) == record
    common = encode_common(bundle, features.USER, record, None, {})
    history = common.histories[HISTORY_NAME]
    ads = np.array([event.values[0] for event in record.events])
    assert history.shape == (HISTORY, 2)
    assert np.array_equal(history[:, 0], ads + FIRST_KNOWN)
    assert np.array_equal(history, bundle.ads.fields[ads + FIRST_KNOWN])
    assert common.user.tolist() == [record.profile["age"] + FIRST_KNOWN, record.profile["city"] + FIRST_KNOWN]  # type: ignore[operator]


def test_a_small_measurement_gives_the_promised_figures() -> None:
    parser = argparse.ArgumentParser()
    features.add_arguments(parser)
    arguments = parser.parse_args(["--rounds", "20", "--ads", "2000"])
    arguments.quick = True
    report = features.run(arguments)
    promised = {
        "redis_p50_ms",
        "redis_p99_ms",
        "cached_p50_ms",
        "encode_p50_ms",
        "encode_cached_p50_ms",
        "floor_p50_ms",
    }
    assert {f"features.{name}" for name in promised} <= set(report.figures)
    assert all(value > 0 for value in report.figures.values())
    assert [row[0] for row in report.tables[0].rows] == list(features.FIGURES)
    assert f"{HISTORY} events" in report.tables[0].title
