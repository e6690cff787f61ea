import json
import shlex
from pathlib import Path

from bundle.folder import Bundle, open_bundle
from service.example import curl_line, example_request
from service.settings import Settings
from tests.service.conftest import post
from tests.service.world import TARGETED, Recipe, make_world, settings_for


def test_the_example_is_a_known_user_in_a_known_context(bundle: Bundle, settings: Settings) -> None:
    request = example_request(bundle)
    assert request == {"user_id": "anna", "context": {"scene": "search", "hour": 18.0}, "k": 5}
    answer = post(settings, "/v1/rank", request)
    assert answer["user"] == "known"
    assert len(answer["ads"]) == 5


def test_the_example_is_where_targeted_ads_are_shown(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(targeting=TARGETED))
    request = example_request(open_bundle(folder))
    assert request["context"] == {"scene": "search", "hour": 18.0, "region": "town-253"}
    assert len(post(settings_for(folder), "/v1/rank", request)["ads"]) == 5


def test_the_line_survives_a_shell(bundle: Bundle) -> None:
    words = shlex.split(curl_line(bundle, "http://127.0.0.1:8000"))
    assert words[2] == "http://127.0.0.1:8000/v1/rank"
    assert json.loads(words[-1]) == example_request(bundle)


def test_an_empty_catalogue_has_an_example_too(tmp_path: Path) -> None:
    assert example_request(open_bundle(make_world(tmp_path, Recipe(ads=0))))["user_id"] == "anna"
