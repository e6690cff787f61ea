"""Everything that can be wrong with a bundle, without any notion of HTTP or exit codes."""

import math


class BundleError(Exception):
    """The root of this package's errors. The message names the thing, its value and what was expected."""


class ManifestError(BundleError):
    """manifest.json is missing, unreadable, of another format, or has unknown or missing keys."""


class IntegrityError(BundleError):
    """A file is missing, was not announced, or does not have the announced size or checksum."""


class ContractError(BundleError):
    """Arrays, vocabularies or graphs do not have the shape, type or order that the manifest states."""


class PlaceError(BundleError):
    """A bundle store does not have the bundle, has it already, or does not answer."""


class UnreachableError(PlaceError):
    """A bundle store does not answer: of the moment, perhaps."""


class SignatureError(BundleError):
    """No accepted key signed the manifest, or a key or a signature cannot be read."""


class GoldenError(BundleError):
    """A graph replayed on this machine does not give the recorded outputs within the stated tolerance."""

    def __init__(self, message: str, found: float = math.nan, allowed: float = 0.0) -> None:
        """`found`: the largest |difference|, NaN when it is not finite or the shapes differ."""
        super().__init__(message)
        self.found, self.allowed = found, allowed


class RecordError(BundleError):
    """A user's packed features cannot be read."""
