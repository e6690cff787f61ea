"""Everything that can go wrong with a call, in one tree. No error of the HTTP library comes out of a client."""


class ClientError(Exception):
    """The root. The message says what was asked of whom, and what came of it."""

    def __init__(self, message: str, *, request_id: str = "", attempts: int = 0, maybe_taken: bool = False) -> None:
        super().__init__(message)
        self.request_id = request_id
        """Under which the service logged it, if it got that far."""
        self.attempts = attempts
        """Times it was sent; 0: never."""
        self.maybe_taken = maybe_taken
        """Whether the service may have done what was asked. It matters for events: sent again, they may be there
        twice."""


class ArgumentError(ClientError, ValueError):
    """The call cannot be sent as it stands: names the field."""


class NoAnswerError(ClientError):
    """There is no answer, or no whole one."""


class UnreachableError(NoAnswerError, ConnectionError):
    """No connection, or it broke."""


class DeadlineError(NoAnswerError, TimeoutError):
    """The deadline passed before the answer was there."""


class UnreadableAnswerError(ClientError):
    """The status says success, and the body is none of this API."""


class ProblemError(ClientError):
    """The service answered that it did not do it."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        field: str | None = None,
        bound: str | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
        attempts: int = 0,
        maybe_taken: bool = False,
    ) -> None:
        super().__init__(message, request_id=request_id, attempts=attempts, maybe_taken=maybe_taken)
        self.status = status
        self.code = code
        """As in docs/api.md; empty when the answer is not the service's own, but a proxy's for example."""
        self.field = field
        """What was wrong, or None."""
        self.bound = bound
        """What would be accepted, or None."""
        self.retry_after_s = retry_after_s
        """When to try again, if the service said so."""


class InvalidRequestError(ProblemError):
    """400, 408, 413, 422: the request is wrong."""


class NotAllowedError(ProblemError):
    """401, 403: the key is missing or wrong."""


class OverloadedError(ProblemError):
    """429: too many requests are in flight. Nothing of this one was read."""


class UnavailableError(ProblemError):
    """503: no bundle yet, or the store does not take events."""


BY_STATUS: dict[int, type[ProblemError]] = {
    400: InvalidRequestError,
    401: NotAllowedError,
    403: NotAllowedError,
    408: InvalidRequestError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: OverloadedError,
    503: UnavailableError,
}
"""Every other status is a plain ProblemError."""
