"""The service from Python: typed, one pool of connections, one deadline a call.

    with Client("http://127.0.0.1:8000") as ads:
        for ad in ads.rank("42", context={"scene": "feed"}, k=10, deadline_ms=50).ads:
            print(ad.ad_id, ad.pctr)

AsyncClient is the same for asyncio. Administration is control/client.py. docs/client.md says more.
"""

from client.blocking import Client
from client.concurrent import AsyncClient
from client.errors import (
    ArgumentError,
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NoAnswerError,
    NotAllowedError,
    OverloadedError,
    ProblemError,
    UnavailableError,
    UnreachableError,
    UnreadableAnswerError,
)
from client.schemas import (
    BundleOut,
    BundlesResponse,
    EventIn,
    EventsResponse,
    ExcludedAd,
    Filter,
    Given,
    RankedAd,
    RankRequest,
    RankResponse,
    RungOut,
    ScoreRequest,
    ScoreResponse,
    StageOut,
)
from client.timing import Exchange

__all__ = [
    "ArgumentError",
    "AsyncClient",
    "BundleOut",
    "BundlesResponse",
    "Client",
    "ClientError",
    "DeadlineError",
    "EventIn",
    "EventsResponse",
    "Exchange",
    "ExcludedAd",
    "Filter",
    "Given",
    "InvalidRequestError",
    "NoAnswerError",
    "NotAllowedError",
    "OverloadedError",
    "ProblemError",
    "RankRequest",
    "RankResponse",
    "RankedAd",
    "RungOut",
    "ScoreRequest",
    "ScoreResponse",
    "StageOut",
    "UnavailableError",
    "UnreachableError",
    "UnreadableAnswerError",
]
