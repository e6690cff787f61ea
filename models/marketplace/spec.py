"""Sizes of a simulated marketplace, and how strongly each thing moves a click."""

from pydantic import Field, model_validator

from bundle.schema import Frozen

AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
GENDERS = ("f", "m", "x")
LEVELS = 5
"""Spending levels of users and price levels of ads, 1..5."""


class Effects(Frozen):
    """Weights of the true click logit, see `models/marketplace/truth.py` for the formula.

    The defaults give a click-through rate near 15 % and a best possible AUC near 0.775 on 10^6 impressions; the true
    logit without its history terms reaches 0.65, the ads' own measured rates 0.60. What the profile's crosses with the
    category add is kept small, so that 10^6 impressions are enough for a network to learn them.
    """

    bias: float = -2.5
    """Logit of an average ad for a user without any history, at the first position."""
    quality: float = 0.35
    """Of the ad's visible quality number, which is standard normal."""
    appeal: float = Field(default=0.08, ge=0)
    """Spread of what is the ad's own and only its id tells, and its image where there are images."""
    brand: float = Field(default=0.25, ge=0)
    """Spread between brands."""
    category: float = Field(default=0.2, ge=0)
    """Spread between categories."""
    age_by_category: float = Field(default=0.12, ge=0)
    """Spread of how much an age band likes a category."""
    gender_by_category: float = Field(default=0.1, ge=0)
    """Spread of how much a gender likes a category."""
    city: float = Field(default=0.15, ge=0)
    """Spread between cities."""
    price_gap: float = Field(default=0.12, ge=0)
    """Lost for each level between the user's spending and the ad's price."""
    scene: float = Field(default=0.25, ge=0)
    """Spread between scenes."""
    scene_by_category: float = Field(default=0.08, ge=0)
    """Spread of how well a category does in a scene."""
    position: float = Field(default=0.15, ge=0)
    """Lost for each e-fold of (1 + position): at 0.15 the tenth place gets about 0.7 of the first one's odds."""
    interest: float = Field(default=1.6, ge=0)
    """Gained when the history is full of the ad's category."""
    interest_scale: float = Field(default=3.0, gt=0)
    """Recency-weighted behaviours in the category after which 63 % of `interest` is gained."""
    loyalty: float = Field(default=1.0, ge=0)
    """Gained when the history is full of the ad's brand."""
    loyalty_scale: float = Field(default=1.0, gt=0)
    """The same scale for brands."""
    fatigue: float = Field(default=0.5, ge=0)
    """Lost when the very same ad is in the history."""
    style: float = Field(default=0.0, ge=0)
    """Gained when all behaviours have exactly the style of the ad, which images show; lost when the opposite one."""
    half_life: float = Field(default=40.0, gt=0)
    """Behaviours after which an older one counts half."""
    like_by_click: float = Field(default=0.8, ge=0)
    """Of the click's logit in the logit of a like, given the click: who clicks readily likes readily."""
    like_by_brand: float = Field(default=0.5, ge=0)
    """Spread between brands in being liked once clicked."""
    like_by_age: float = Field(default=0.3, ge=0)
    """Spread of how readily an age band likes what it clicked."""


class MarketplaceSpec(Frozen):
    """Everything that determines a simulated marketplace: equal specs give equal files."""

    seed: int = Field(default=0, ge=0)
    ads: int = Field(default=10_000, ge=100, le=10_000_000)
    users: int = Field(default=20_000, ge=10, le=10_000_000)
    impressions: int = Field(default=1_000_000, ge=100, le=10_000_000_000)
    """Rounded up to whole requests."""
    categories: int = Field(default=20, ge=2, le=10_000)
    brands: int = Field(default=200, ge=2, le=1_000_000)
    """Each belongs to one category; every category has at least one, every brand at least one ad."""
    advertisers: int = Field(default=300, ge=1, le=1_000_000)
    cities: int = Field(default=30, ge=1, le=10_000)
    scenes: tuple[str, ...] = Field(default=("feed", "search", "detail"), min_length=1)
    """Where ads are shown."""
    regions: tuple[str, ...] = Field(default=("north", "east", "south", "west"), min_length=1, max_length=16)
    """Where users are, by their city; only there when some ads are targeted."""
    targeted: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the ads that may be shown in some scenes and regions only. 0: no ad has any targeting."""
    likes: float = Field(default=0.0, ge=0, le=0.5)
    """Probability of a like after a click whose logit is the bias alone. 0: there are no likes."""
    launched: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the ads that are shown from some moment of the log on only, evenly spread over its length. 0: none."""
    images: int = Field(default=0, ge=0, le=4096)
    """Width of the vector of each ad's image. 0: no images."""
    image_noise: float = Field(default=1.0, ge=0)
    """Spread of what an image shows beside the ad's appeal and style, which have about the same in each number."""
    candidates: int = Field(default=10, ge=1, le=100)
    """Ads shown in one request, at positions 0, 1, …"""
    interests: int = Field(default=4, ge=1, le=20)
    """Interests of one user: a category, a favourite brand in it, and a weight."""
    history_length: int = Field(default=30, ge=1, le=200)
    """Behaviours remembered of a user: what the truth depends on, and what a model is shown."""
    history_mean: float = Field(default=10.0, gt=0)
    """Mean length of the history that a user starts with (before it is cut to `history_length`)."""
    history_empty: float = Field(default=0.05, ge=0, le=1)
    """Share of users who start without any history."""
    favourite: float = Field(default=0.4, ge=0, le=1)
    """Share of interest-driven draws that take the favourite brand."""
    shown_by_interest: float = Field(default=0.5, ge=0, le=1)
    """Share of the shown ads drawn by the user's interests."""
    shown_by_popularity: float = Field(default=0.3, ge=0, le=1)
    """Share drawn by popularity; the rest is drawn evenly from all ads."""
    zipf: float = Field(default=0.7, gt=0, lt=1)
    """Exponent of popularity: the ad of rank r is drawn in proportion to r ** -zipf."""
    days: int = Field(default=10, ge=1, le=3650)
    """Length of the log."""
    start_ms: int = Field(default=1_735_689_600_000, ge=0)
    """Unix time of its beginning, in milliseconds."""
    effects: Effects = Effects()

    @model_validator(mode="after")
    def _consistent(self) -> "MarketplaceSpec":
        if not self.categories <= self.brands <= self.ads:
            raise ValueError(
                f"categories <= brands <= ads must hold, they are {self.categories}, {self.brands}, {self.ads}"
            )
        if self.shown_by_interest + self.shown_by_popularity > 1:
            raise ValueError(
                f"shown_by_interest + shown_by_popularity must be at most 1, "
                f"they are {self.shown_by_interest} + {self.shown_by_popularity}"
            )
        if 2 * self.candidates > self.ads:
            raise ValueError(f"candidates must be at most half of ads, they are {self.candidates} and {self.ads}")
        for name, values in (("scenes", self.scenes), ("regions", self.regions)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must differ, they are {values}")
        if self.targeted and 4 * self.candidates > self.ads:
            raise ValueError(
                f"candidates must be at most a quarter of ads when some are targeted, they are {self.candidates} and "
                f"{self.ads}"
            )
        if self.launched and 8 * self.candidates > self.ads:
            raise ValueError(
                f"candidates must be at most an eighth of ads when some are launched later, they are {self.candidates} "
                f"and {self.ads}"
            )
        if self.effects.style and not self.images:
            raise ValueError(f"effects.style is {self.effects.style}, but there are no images that would show it")
        if self.targeted and len(self.scenes) > 16:
            raise ValueError(f"there may be at most 16 scenes when some ads are targeted, there are {len(self.scenes)}")
        if self.requests > self.days * 86_400_000:
            raise ValueError(f"{self.requests} requests do not fit into {self.days} days at one a millisecond")
        return self

    @property
    def requests(self) -> int:
        """Number of requests in the log."""
        return -(-self.impressions // self.candidates)
