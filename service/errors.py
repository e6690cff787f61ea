"""Everything that can go wrong in the service, without any notion of HTTP; problem.py maps these to status codes."""


class ServiceError(Exception):
    """The root. The message names the thing, its value and the bound."""


class InvalidRequestError(ServiceError):
    """A request that cannot be served as it stands: says which field, and what would be accepted."""

    def __init__(self, message: str, field: str | None = None, bound: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.bound = bound


class MalformedBodyError(InvalidRequestError):
    """The body is not JSON."""


class BodyTooLargeError(InvalidRequestError):
    """The body has more bytes than are read."""


class BodyTimeoutError(ServiceError):
    """The body did not arrive in time."""


class OverloadedError(ServiceError):
    """As many requests are in flight as may be; nothing of this one was read."""

    def __init__(self, limit: int, retry_after_s: int = 1) -> None:
        super().__init__(f"{limit} requests are in flight already, no more are accepted")
        self.limit = limit
        self.retry_after_s = retry_after_s


class NotReadyError(ServiceError):
    """No bundle is loaded yet."""


class StoreError(ServiceError):
    """The feature store did not answer, or answered with an error."""


class UnauthorizedError(ServiceError):
    """The caller showed no key, or a wrong one."""


class ForbiddenError(ServiceError):
    """Nobody may do this as the service is set up."""


class ConflictError(ServiceError):
    """The state was changed since the caller read it: names the version there is."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"version {expected} was to be replaced, the state is at {found}: read it and try again")
        self.expected, self.found = expected, found


class StartError(ServiceError):
    """The service cannot start as it is set up."""


class SettingsError(StartError):
    """A setting is unknown, out of bounds, or contradicts another."""


class ProviderError(StartError):
    """The chosen execution provider is not there, or did not take the graph."""
