"""X-Adrank-Arm: who may name an arm, and what is said of wrong ones."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidRequestError
from service.forced_arms import parse
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.service.plans import KEY, ask, experiment, forcing, planned
from tests.service.world import Recipe, make_world, settings_for

BODIES: dict[str, dict[str, Any]] = {
    "/v1/rank": {"user_id": "anna"},
    "/v1/score": {"user_id": "anna", "ads": [1000]},
}
both_routes = pytest.mark.parametrize("path", BODIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("forced"), Recipe(bundle_id="b1"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedBundle:
    return load_bundle(folder, settings_for(folder))


@pytest.fixture
def settings(folder: Path) -> Settings:
    return settings_for(folder, testing_key=KEY)


@both_routes
def test_with_the_key_the_arm_is_as_told(settings: Settings, loaded: LoadedBundle, path: str) -> None:
    plan = planned([loaded], experiment("trial", 0.0), experiment("other", 1.0, layer="second"))
    for arms in ({"trial": "new"}, {"trial": "control"}, {"trial": "new", "other": "control"}):
        answer = ask(settings, plan, path, BODIES[path], forcing(**arms))
        assert answer["arms"] == {"other": "new", "trial": "control"} | arms


@both_routes
@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        (None, "none was given"),
        ("", "none was given"),
        (f"Basic {KEY}", "none was given"),
        (f"Bearer {KEY}x", "a wrong one was given"),
        ("Bearer é", "a wrong one was given"),
    ],
)
def test_without_the_key_it_is_refused(
    settings: Settings, loaded: LoadedBundle, path: str, authorization: str | None, said: str
) -> None:
    headers = {b"X-Adrank-Arm": b"trial=new"}
    if authorization is not None:
        headers[b"Authorization"] = authorization.encode()
    answer = ask(settings, planned([loaded], experiment("trial")), path, BODIES[path], headers, status=401)
    assert answer["error"]["code"] == "unauthorized"
    assert said in answer["error"]["message"]
    assert KEY not in answer["error"]["message"]


@both_routes
def test_while_no_key_is_set_nobody_may(folder: Path, loaded: LoadedBundle, path: str) -> None:
    plan = planned([loaded], experiment("trial"))
    answer = ask(settings_for(folder), plan, path, BODIES[path], forcing(trial="new"), status=403)
    assert answer["error"]["code"] == "forbidden"
    assert "testing_key, which is not set" in answer["error"]["message"]


@both_routes
def test_an_arm_that_is_not_there_names_those_that_are(settings: Settings, loaded: LoadedBundle, path: str) -> None:
    plan = planned([loaded], experiment("trial"))
    answer = ask(settings, plan, path, BODIES[path], forcing(trial="old"), status=422)["error"]
    assert answer["message"] == "trial has no running arm 'old'; running: control, new"
    assert answer["field"] == "X-Adrank-Arm"
    answer = ask(settings, plan, path, BODIES[path], forcing(tiral="new"), status=422)["error"]
    assert answer["message"] == "the experiment 'tiral' does not run; running: trial"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has '', not experiment=arm"),
        ("trial", "has 'trial', not"),
        ("trial=", "has 'trial=', not"),
        ("trial=new,", "has '', not"),
        ("trial=new;other=new", "has 'trial=new;other=new', not"),
        ("Trial=new", "has 'Trial=new', not"),
        ("trial=" + "a" * 65, "not experiment=arm"),
        ("trial=new,trial=old", "puts trial into new and old"),
        (",".join(f"e{i}=new" for i in range(65)), "names 65 arms, at most 64"),
    ],
)
def test_what_is_no_list_of_arms(text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match="X-Adrank-Arm") as refused:
        parse(text)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_list_of_arms() -> None:
    assert parse("trial=new") == {"trial": "new"}
    assert parse("trial=new, other=b_2,trial=new") == {"trial": "new", "other": "b_2"}
