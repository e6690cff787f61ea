"""Everything that can be wrong with a bundle, without any notion of HTTP or exit codes."""


class BundleError(Exception):
    """The root of this package's errors. The message names the thing, its value and what was expected."""


class ManifestError(BundleError):
    """manifest.json is missing, unreadable, of another format, or has unknown or missing keys."""


class IntegrityError(BundleError):
    """A file is missing, was not announced, or does not have the announced size or checksum."""


class ContractError(BundleError):
    """Arrays, vocabularies or graphs do not have the shape, type or order that the manifest states."""


class GoldenError(BundleError):
    """A graph replayed on this machine does not give the recorded outputs within the stated tolerance."""


class RecordError(BundleError):
    """A user's packed features cannot be read."""
