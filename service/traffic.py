"""How busy this process is with requests, for work in other threads that can wait."""


class Traffic:
    """Counted on the event loop, read in any thread: a single number, which may be one request old."""

    __slots__ = ("in_flight",)

    def __init__(self) -> None:
        self.in_flight = 0
