"""What cannot be reckoned with."""


class CapacityError(ValueError):
    """A file, a number or a promise that nothing can be said of."""
