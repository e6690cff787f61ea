import pytest
from pydantic import ValidationError

from models.marketplace.spec import Effects, MarketplaceSpec


def test_requests_cover_the_impressions() -> None:
    assert MarketplaceSpec(impressions=1001, candidates=10).requests == 101


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ads": 99}, "ads\n.*greater than or equal to 100"),
        ({"ads": 10_000_001}, "ads\n.*less than or equal to 10000000"),
        ({"users": 0}, "users\n.*greater than or equal to 10"),
        ({"impressions": -1}, "impressions\n.*greater than or equal to 100"),
        ({"categories": 500, "brands": 400}, "categories <= brands <= ads must hold, they are 500, 400, 10000"),
        ({"brands": 300, "ads": 200}, "they are 20, 300, 200"),
        ({"candidates": 80, "ads": 120, "brands": 50}, "candidates must be at most half of ads, they are 80 and 120"),
        ({"shown_by_interest": 0.9, "shown_by_popularity": 0.2}, r"they are 0\.9 \+ 0\.2"),
        ({"scenes": ("feed", "feed")}, "scenes must differ"),
        ({"regions": ("north", "north")}, "regions must differ"),
        ({"targeted": 0.51}, r"targeted\n.*less than or equal to 0\.5"),
        ({"targeted": 0.1, "candidates": 40, "ads": 150, "brands": 50}, "a quarter of ads when some are targeted"),
        ({"targeted": 0.1, "scenes": tuple("abcdefghijklmnopq")}, "at most 16 scenes .* there are 17"),
        ({"impressions": 10_000_000_000, "days": 1}, "1000000000 requests do not fit into 1 days"),
        ({"colour": 1}, "colour\n.*Extra inputs"),
    ],
)
def test_bad_sizes_are_refused_by_name_and_bound(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MarketplaceSpec.model_validate(given)


def test_spreads_and_scales_have_bounds() -> None:
    with pytest.raises(ValidationError, match="interest_scale"):
        Effects(interest_scale=0)
