from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import PREFIX, Settings, read_settings, to_environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_given_values_go_before_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADRANK_PORT", "9001")
    monkeypatch.setenv("ADRANK_MAX_K", "50")
    monkeypatch.setenv("ADRANK_REDIS_URL", "")
    settings = read_settings(bundle="somewhere", port="9002")
    assert (settings.port, settings.max_k, settings.default_k) == (9002, 50, 10)
    assert settings.bundle == Path("somewhere")
    assert settings.redis_url is None


def test_unknown_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADRANK_PROT", "9001")
    with pytest.raises(SettingsError, match=r"ADRANK_PROT.*known: .*ADRANK_PORT"):
        read_settings(bundle="x")


def test_the_bundle_is_needed() -> None:
    with pytest.raises(SettingsError, match="bundle"):
        read_settings()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"redis_timeout_ms": 60}, "redis_timeout_ms is 60, it must be below features_timeout_ms, 50"),
        ({"features_timeout_ms": 300}, "features_timeout_ms is 300, it must be below default_deadline_ms, 200"),
        ({"default_deadline_ms": 20_000}, "default_deadline_ms is 20000, at most max_deadline_ms, 10000"),
        ({"default_k": 300}, "default_k is 300, at most max_k, 200"),
        ({"workers": 2}, "workers is 2, more than 1 need redis_url"),
        ({"port": 70_000}, "port"),
        ({"provider": "tpu"}, "provider"),
        ({"threads": 0}, "threads"),
        ({"colour": "red"}, "colour"),
        ({"cache_users": -1}, "cache_users"),
        ({"cache_seconds": 3601}, "cache_seconds"),
        ({"cache_untold_seconds": 61}, "cache_untold_seconds"),
        ({"stale_seconds": 0}, "stale_seconds"),
        ({"state_ttl_seconds": 1, "state_poll_seconds": 0.3}, "state_ttl_seconds is 1, it must be at least 4 times"),
        ({"redis_prefix": "state:"}, "redis_prefix is 'state:', with which the keys of the state"),
        ({"keep_bundles": 17}, "keep_bundles"),
    ],
)
def test_wrong_values_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_settings(bundle="x", **changed)


def test_settings_are_frozen_and_each_says_why_it_exists() -> None:
    settings = read_settings(bundle="x")
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(field.description) > 20, name


def test_workers_read_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(bundle="x", port=9, redis_url="redis://h:1/2", prerank_keep=7, features_timeout_ms=33.5)
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings
