"""Keys: shown, wrong, missing, and not set."""

import pytest

from service.credentials import Credential, is_loopback
from service.errors import ForbiddenError, UnauthorizedError


def test_the_right_key_is_let_in() -> None:
    Credential("admin_key", "secret", open_without=False).check({"authorization": "Bearer secret"})
    Credential("admin_key", "secret", open_without=False).check({"authorization": "bearer  secret"})


@pytest.mark.parametrize(
    ("shown", "said"),
    [(None, "none was given"), ("secret", "none was given"), ("Bearer ", "none was given"), ("Bearer Secret", "wrong")],
)
def test_others_are_not(shown: str | None, said: str) -> None:
    headers = {} if shown is None else {"authorization": shown}
    with pytest.raises(UnauthorizedError, match=f"admin_key.*{said}"):
        Credential("admin_key", "secret", open_without=True).check(headers)


def test_without_a_key_only_where_that_was_allowed() -> None:
    Credential("admin_key", None, open_without=True).check({})
    with pytest.raises(ForbiddenError, match="admin_key is not set"):
        Credential("admin_key", None, open_without=False).check({"authorization": "Bearer x"})


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("ads", False)],
)
def test_loopback(host: str, wanted: bool) -> None:
    assert is_loopback(host) is wanted
