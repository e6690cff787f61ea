import argparse
import json
from pathlib import Path

import pytest

from control.command_line import with_redis
from service.features_command import main
from service.settings import Settings
from tests.service.conftest import RedisServer, free_port


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_bundles_users_are_loaded_and_shown(
    folder: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--redis", redis_server.url, "--prefix", "command:"]
    for _ in range(2):  # the second time changes nothing
        code, out, err = run(capsys, "load", *place, "--bundle", str(folder), "--batch", "2")
        assert code == 0
        assert out.startswith("3 users written, ")
        assert "3/3" in err
    code, out, _ = run(capsys, "show", *place, "anna")
    lines = out.splitlines()
    assert code == 0
    assert json.loads(lines[0]) == {"city": "Lyon", "age": 31, "income": 4.0}
    assert json.loads(lines[1]) == ["click", 1000, 1000]
    assert len(lines) == 6
    code, _, err = run(capsys, "show", *place, "nobody")
    assert code == 1
    assert "'nobody'" in err


def test_users_come_from_a_file(tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--redis", redis_server.url, "--prefix", "file:"]
    path = tmp_path / "users.jsonl"
    lines = [{"user_id": i, "profile": {"city": "Ålesund"}, "events": [["click", 5, i]]} for i in range(25)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    assert run(capsys, "load", *place, "--file", str(path), "--batch", "10")[0] == 0
    code, out, _ = run(capsys, "show", *place, "24")
    assert (code, out) == (0, '{"city": "Ålesund"}\n["click", 5, 24]\n')


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not a user's record"),
        ('{"profile": {}}', "line 2: not a user's record: KeyError('user_id')"),
        ('{"user_id": 1, "evnets": []}', "unknown keys ['evnets']"),
        ('{"user_id": 1, "events": [["click"]]}', "line 2: not a user's record"),
        ("[1]", "line 2"),
        ("[]", "line 2: not a user's record: TypeError('an object is expected, not list')"),
        ('""', "line 2: not a user's record: TypeError('an object is expected, not str')"),
        ('{"user_id": 1, "events": [["click", 1e400, 5]]}', "line 2: not a user's record: OverflowError"),
        ('{"user_id": 1, "profile": {"age": 1e400}}', "line 2: not a user's record: RecordError"),
        (
            '{"user_id": null}',
            "line 2: not a user's record: TypeError('user_id is a whole number or a text, not None')",
        ),
        ('{"user_id": ["x"]}', "line 2: not a user's record"),
        (r'{"user_id": "\ud800"}', "line 2: not a user's record"),
    ],
)
def test_a_wrong_line_is_named(
    tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text('{"user_id": 1}\n' + line + "\n")
    code, _, err = run(capsys, "load", "--redis", redis_server.url, "--prefix", "wrong:", "--file", str(path))
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_what_is_missing_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADRANK_REDIS_URL", raising=False)
    code, _, err = run(capsys, "load", "--bundle", str(folder))
    assert (code, "use --redis or ADRANK_REDIS_URL" in err) == (2, True)
    code, _, err = run(capsys, "show", "--redis", f"redis://127.0.0.1:{free_port()}/0", "anna")
    assert (code, "store unavailable" in err) == (2, True)
    code, _, err = run(capsys, "load", "--redis", "redis://127.0.0.1:1", "--file", "/no/such/file")
    assert (code, "/no/such/file: cannot be read" in err) == (2, True)


def test_commands_look_where_the_service_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (None, "other:"):
        if given is not None:
            monkeypatch.setenv("ADRANK_REDIS_PREFIX", given)
        parser = argparse.ArgumentParser()
        with_redis(parser)
        assert parser.parse_args([]).prefix == Settings(bundle=Path("b")).redis_prefix
