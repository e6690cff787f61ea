"""What a running service tells of itself, by its public API: fields, ads that it shows, and users it can be given."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import numpy as np

from client import BundleOut, BundlesResponse, Client, ClientError, EventIn
from loadtest.traffic import Mix, World, history_lengths, zipf

ASKED = 40
"""Rank requests from which ads are learnt."""
EVENTS = 500
"""Of one request."""
TIMEOUT_S = 30.0
RANK_MS = 5000.0
"""So that no stage is left out where ads are learnt."""
T = TypeVar("T")


class ServiceError(OSError):
    """The service does not answer as it must."""


class Service:
    """A service at `url`, for questions that are not load: those of its client, and changes of what is served, which
    are none of the client's. Every method raises ServiceError."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self.headers = headers or {}
        self._client = self._asked(lambda: Client(self.url, headers=self.headers, deadline_ms=TIMEOUT_S * 1e3))
        self._http = httpx.Client(base_url=self.url, headers=self.headers, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._http.close()

    def bundles(self) -> BundlesResponse:
        """What is served."""
        return self._asked(self._client.bundles)

    def shown(self, user_id: str, context: Mapping[str, Any], k: int) -> list[int | str]:
        """The ads that this user is shown."""
        answer = self._asked(lambda: self._client.rank(user_id, context=context, k=k, deadline_ms=RANK_MS))
        return [ad.ad_id for ad in answer.ads]

    def tell(self, events: list[EventIn]) -> None:
        """Tell it what users did."""
        self._asked(lambda: self._client.events(events))

    def change(self, change: dict[str, Any], admin: dict[str, str]) -> int:
        """Change what is served, with the key of administration in the headers `admin`. The version that is wanted."""
        path = "/v1/admin/changes"
        try:
            answer = self._http.post(path, json=change, headers=admin)
        except httpx.HTTPError as error:
            raise ServiceError(f"POST {self.url}{path}: {error or type(error).__name__}") from error
        if answer.status_code != 200:
            raise ServiceError(f"POST {self.url}{path}: status {answer.status_code}: {answer.text[:300]}")
        return int(answer.json()["version"])

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except ClientError as error:
            raise ServiceError(str(error)) from error


def control_of(service: Service) -> BundleOut:
    """The control's bundle. ServiceError without one."""
    bundles = service.bundles().bundles
    if not bundles:
        raise ServiceError(f"GET {service.url}/v1/bundles: no bundle is served")
    return bundles[0]


def look(service: Service, mix: Mix, users: list[str], seed: int) -> World:
    """Ads are those that the service shows to ASKED unknown visitors; those shown most often count as most popular."""
    bundle = control_of(service)
    context_fields = frozenset([*bundle.targeting, *bundle.context_fields])
    random = np.random.default_rng(seed)
    shown: dict[int | str, int] = {}
    for i in range(ASKED):
        context = {
            name: values[random.integers(len(values))]
            for name, values in mix.context.items()
            if name in context_fields and values
        }
        for ad in service.shown(f"looking-{i}", context, bundle.sizes["answer"]):
            shown[ad] = shown.get(ad, 0) + 1
    return World(
        ads=sorted(shown, key=lambda ad: -shown[ad]),
        users=list(users),
        context_fields=context_fields,
        histories={name: int(each["max_length"]) for name, each in bundle.histories.items() if each["of_ads"]},
    )


def give_histories(service: Service, world: World, mix: Mix, seed: int) -> int:
    """Send events, so that the world's users have histories: clicks on ads that are popular by Zipf's law. How many."""
    random = np.random.default_rng(seed)
    if "click" not in control_of(service).event_kinds or not world.ads:
        return 0
    lengths = history_lengths(mix, len(world.users), random).clip(1, 100)
    ads = zipf(len(world.ads), mix.ad_exponent, int(lengths.sum()), random).tolist()
    owners = np.repeat(np.arange(len(lengths)), lengths).tolist()
    events = [
        EventIn(user_id=world.users[owner], kind="click", ad_id=world.ads[ad])
        for owner, ad in zip(owners, ads, strict=True)
    ]
    for first in range(0, len(events), EVENTS):
        service.tell(events[first : first + EVENTS])
    return len(events)
