"""Keys: shown, wrong, missing, two at a time, and what a setting takes for one."""

import pytest

from service.credentials import LONGEST, Credential, is_loopback, parse_keys
from service.errors import UnauthorizedError

KEY, NEXT = "a-key-of-the-tests", "the-one-after-that"


@pytest.mark.parametrize("value", [KEY, f"{KEY},{NEXT}", f"{NEXT} , {KEY}"])
def test_the_right_key_is_let_in(value: str) -> None:
    credential = Credential.of("admin_key", value)
    credential.check({"authorization": f"Bearer {KEY}"})
    credential.check({"authorization": f"bearer  {KEY}"})


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (None, "none was given"),
        (KEY, "none was given"),
        (f"Basic {KEY}", "none was given"),
        ("Bearer ", "none was given"),
        (f"Bearer {KEY[:-1]}", "wrong"),
        (f"Bearer {KEY},{NEXT}", "wrong"),
        ("Bearer k\u00e9y", "wrong"),
    ],
)
def test_others_are_not(shown: str | None, said: str) -> None:
    headers = {} if shown is None else {"authorization": shown}
    with pytest.raises(UnauthorizedError, match=f"admin_key.*{said}") as refused:
        Credential.of("admin_key", f"{KEY},{NEXT}").check(headers)
    assert KEY not in str(refused.value)


def test_without_a_key_all_are_let_in_and_no_key_is_right() -> None:
    Credential.of("admin_key", None).check({})
    assert not Credential.of("admin_key", None).is_right("")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "key 1 has 5 characters, from 16 to 1024"),
        (f"{KEY},", "key 2 has 0 characters"),
        ("x" * (LONGEST + 1), "key 1 has 1025 characters"),
        (f"{KEY},{NEXT},{KEY}", "3 keys with commas between, at most 2"),
        ("k\u00e9y of enough characters", "only those of ASCII"),
    ],
)
def test_what_is_no_key_is_refused_and_not_quoted(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        parse_keys(text)
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("ads", False)],
)
def test_loopback(host: str, wanted: bool) -> None:
    assert is_loopback(host) is wanted
