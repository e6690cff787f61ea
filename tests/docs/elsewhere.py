"""Documented commands that no walk runs, and what runs them instead. One that is in neither place fails a test."""

import re

WALKED = {
    "README.md": "tests/docs/test_walks.py::test_the_readme_walks",
    "docs/your-own-data.md": "tests/docs/test_your_own_data.py::test_the_page_leads_from_a_csv_to_a_ranking",
    "docs/bundle.md": "tests/docs/test_walks.py::test_operating_walks",
    "docs/operations.md": "tests/docs/test_walks.py::test_operating_walks",
    "docs/experiments.md": "tests/docs/test_walks.py::test_operating_walks",
}
"""Pages whose commands are run as printed, in order, but for those below -> the test that does."""

BENCHES = {
    "all": "tests/benchmarks/test_report.py",
    "http": "tests/benchmarks/http/test_bench.py",
    "train": "tests/benchmarks/training/test_bench.py",
    "stop": "tests/service/test_stop.py",
}
"""Benchmarks take minutes, and each has a test of its name that runs it small; these have another name."""

TRAINING = {
    r"adrank train (?!.*--(continue-from|since))": "tests/models/test_train.py",
    r"adrank train .*--continue-from": "tests/models/test_train_continued.py",
    r"adrank prepare ": "tests/models/data/test_command.py",
    r"adrank marketplace ": "tests/models/marketplace/test_command.py::test_writes_and_reports",
    r"adrank evaluate ": "tests/models/test_evaluate.py",
    r"adrank calibrate ": "tests/models/test_calibrate.py::test_it_is_fitted_on_validation_and_shown_on_both",
    r"adrank leaderboard ": "tests/benchmarks/leaderboard/test_command.py",
    r"adrank tune ": "tests/models/test_tune.py::test_the_best_configuration_is_written_and_trains_to_that_value",
    r"adrank compress .*--recipe ": "tests/export/test_compress.py",
    r"adrank compress .*--target ": "tests/models/compression/test_search.py",
    r"adrank export ": "tests/export/test_command.py::test_a_bundle_is_written_and_named",
    r"adrank serve --bundle artifacts/bundles/kuairand-wide-deep": "tests/end_to_end/test_networks.py",
    r"curl .*/v1/rank": "tests/end_to_end/test_networks.py",
}

LOGGING = {
    r"ADRANK_REDIS_URL=\S+ adrank serve .*--log-entries": "tests/end_to_end/test_outcomes.py",
    r"adrank features load ": "tests/service/test_features_command.py::test_a_bundles_users_are_loaded_and_shown",
    r"adrank outcomes ": "tests/end_to_end/test_outcomes.py::test_training_sees_what_serving_saw",
    r"adrank replay ": "tests/service/test_request_replay.py::test_every_request_gives_the_same_to_the_bit",
    r"adrank simulate ": "tests/end_to_end/test_simulate.py::test_the_true_lift_of_each_arm_is_told",
    r"adrank experiment ": "tests/control/test_commands.py::test_an_experiment_from_start_to_promotion",
    r"adrank experiment status .*--outcomes": "tests/end_to_end/test_guardrails.py",
    r"adrank release rollback ": "tests/control/test_commands.py::test_a_bundle_is_served_and_gone_back_from",
    r"adrank loop ": "tests/end_to_end/test_loop.py::test_turns_are_served_and_an_interrupted_one_is_taken_up",
}

ELSEWHERE: dict[str, dict[str, str]] = {
    "README.md": {
        r"make test$": "tests/docs/test_walks.py",
        r"adrank loadtest --quick ": "tests/loadtest/test_command.py::test_the_knee_is_looked_for_and_reported",
        r"adrank capacity ": "tests/loadtest/capacity/test_command.py",
        r"docker compose up ": "tests/deploy/test_compose.py",
    },
    "CONTRIBUTING.md": {
        r"make (setup|check|test)$": "tests/docs/test_walks.py",
        r"ADRANK_UPDATE_DOCS=1 .venv/bin/python -m pytest tests/docs/": "tests/docs/test_settings_table.py",
    },
    "docs/api.md": {r"curl ": "tests/docs/test_api_page.py::test_calls_answer_as_documented"},
    "docs/bundle.md": {
        r"adrank bundle verify .*--key ": "tests/bundle/test_signature.py::test_the_commands",
        r"ADRANK_BUNDLE_KEYS=": "tests/bundle/test_signature.py::test_a_signature_by_another_key_is_refused",
        r"adrank bundle publish ": "tests/bundle/test_store.py::test_the_command",
    },
    "docs/operations.md": {
        r"adrank serve .*--port 8080": "tests/service/test_serve.py::test_a_served_bundle_from_start_to_end",
    },
    "docs/experiments.md": {
        r"adrank experiment shadow ": "tests/outcomes/test_shadow.py::test_the_command_prints_both",
        r"adrank simulate ": "tests/end_to_end/test_simulate.py::test_the_true_lift_of_each_arm_is_told",
    },
    "docs/data.md": {
        r"adrank prepare shop/": "tests/docs/test_data_page.py::test_the_example_runs_as_printed",
        **{name: TRAINING[name] for name in (r"adrank prepare ", r"adrank marketplace ")},
    },
    "docs/models.md": TRAINING,
    "docs/compression.md": TRAINING,
    "docs/outcomes.md": LOGGING | TRAINING,
    "docs/closed-loop.md": LOGGING,
    "docs/load-tests.md": {r"adrank loadtest ": "tests/loadtest/test_command.py"},
    "docs/capacity.md": {
        r"adrank loadtest ": "tests/loadtest/test_command.py",
        r"adrank capacity ": "tests/loadtest/capacity/test_command.py",
    },
    "docs/client.md": {r".venv/bin/python -m examples\.": "tests/end_to_end/test_client.py"},
}
"""Page -> how a line begins, as a regular expression -> the test that runs this command, in full or small."""


def covered(page: str, line: str) -> list[str]:
    """The tests that run a line of a page, where no walk does."""
    found = [test for begin, test in ELSEWHERE.get(page, {}).items() if re.match(begin, line)]
    if bench := re.match(r"adrank bench (\S+)", line):
        found.append(BENCHES.get(bench[1], f"tests/benchmarks/test_{bench[1].replace('-', '_')}.py"))
    return found
