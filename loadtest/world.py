"""What a running service tells of itself, by its public API: fields, ads that it shows, and users it can be given."""

import httpx
import numpy as np

from loadtest.traffic import Mix, World, history_lengths, zipf

ASKED = 40
"""Rank requests from which ads are learnt."""
EVENTS = 500
"""Of one request."""
TIMEOUT_S = 30.0


class ServiceError(OSError):
    """The service does not answer as it must."""


class Service:
    """A service at `url`, for questions that are not load."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self.headers = headers or {}
        self._http = httpx.Client(base_url=self.url, headers=self.headers, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str) -> dict[str, object]:
        """The answer as JSON. ServiceError unless it is a success."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> dict[str, object]:
        """The same for a POST of JSON."""
        return self._ask("POST", path, body, headers)

    def _ask(self, method: str, path: str, body: object, headers: dict[str, str] | None = None) -> dict[str, object]:
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceError(f"{method} {self.url}{path}: {error or type(error).__name__}") from error
        if answer.status_code != 200:
            raise ServiceError(f"{method} {self.url}{path}: status {answer.status_code}: {answer.text[:300]}")
        read: dict[str, object] = answer.json()
        return read


def control_of(service: Service) -> dict[str, object]:
    """The entry of the control's bundle in GET /v1/bundles. ServiceError without one."""
    bundles = service.get("/v1/bundles")["bundles"]
    if not isinstance(bundles, list) or not bundles:
        raise ServiceError(f"GET {service.url}/v1/bundles: no bundle is served")
    first: dict[str, object] = bundles[0]
    return first


def look(service: Service, mix: Mix, users: list[str], seed: int) -> World:
    """Ads are those that the service shows to ASKED unknown visitors; those shown most often count as most popular."""
    bundle = control_of(service)
    sizes, targeting, histories = bundle["sizes"], bundle["targeting"], bundle["histories"]
    fields = bundle["context_fields"]
    if not (isinstance(sizes, dict) and isinstance(targeting, list) and isinstance(histories, dict)):
        raise ServiceError(f"GET {service.url}/v1/bundles: sizes, targeting or histories are missing")
    context_fields = frozenset([*targeting, *(fields if isinstance(fields, list) else [])])
    random = np.random.default_rng(seed)
    shown: dict[object, int] = {}
    for i in range(ASKED):
        context = {
            name: values[random.integers(len(values))]
            for name, values in mix.context.items()
            if name in context_fields and values
        }
        asked = {"user_id": f"looking-{i}", "context": context, "k": sizes["answer"], "deadline_ms": 5000}
        ads = service.post("/v1/rank", asked)["ads"]
        for ad in ads if isinstance(ads, list) else []:
            shown[ad["ad_id"]] = shown.get(ad["ad_id"], 0) + 1
    return World(
        ads=sorted(shown, key=lambda ad: -shown[ad]),
        users=list(users),
        context_fields=context_fields,
        histories={name: int(each["max_length"]) for name, each in histories.items() if each["of_ads"]},
    )


def give_histories(service: Service, world: World, mix: Mix, seed: int) -> int:
    """Send events, so that the world's users have histories: clicks on ads that are popular by Zipf's law. How many."""
    random = np.random.default_rng(seed)
    kinds = control_of(service)["event_kinds"]
    kind = "click" if isinstance(kinds, list) and "click" in kinds else None
    if kind is None or not world.ads:
        return 0
    lengths = history_lengths(mix, len(world.users), random).clip(1, 100)
    ads = zipf(len(world.ads), mix.ad_exponent, int(lengths.sum()), random).tolist()
    owners = np.repeat(np.arange(len(lengths)), lengths).tolist()
    events = [
        {"user_id": world.users[owner], "kind": kind, "ad_id": world.ads[ad]}
        for owner, ad in zip(owners, ads, strict=True)
    ]
    for first in range(0, len(events), EVENTS):
        service.post("/v1/events", {"events": events[first : first + EVENTS]})
    return len(events)
