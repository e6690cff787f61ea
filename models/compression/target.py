"""What a search for a recipe is asked to reach: `bytes<=0.2 macs<=0.125 dgauc>=0`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from models.config import ConfigError

SHARES = ("bytes", "macs", "parameters")
"""Of the original's, from 0 to 1: known from the shapes, before anything is computed."""
CHANGES = ("dauc", "dgauc", "dlogloss")
"""Compressed minus original, on the validation split."""
PART = re.compile(r"^([a-z]+)(<=|>=)([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)$")


@dataclass(frozen=True, slots=True)
class Bound:
    """One part of a target."""

    name: str
    upper: bool
    """At most `value`; otherwise at least."""
    value: float

    def holds(self, found: Mapping[str, float]) -> bool:
        """Whether a candidate reaches it."""
        return found[self.name] <= self.value if self.upper else found[self.name] >= self.value

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.upper else '>='}{self.value:g}"


@dataclass(frozen=True, slots=True)
class Target:
    """All parts."""

    bounds: tuple[Bound, ...]

    @property
    def sizes(self) -> tuple[Bound, ...]:
        """Those that shapes decide."""
        return tuple(each for each in self.bounds if each.name in SHARES)

    def missed(self, found: Mapping[str, float]) -> list[str]:
        """The parts that a candidate does not reach."""
        return [str(each) for each in self.bounds if not each.holds(found)]

    def __str__(self) -> str:
        return " ".join(map(str, self.bounds))


def read_target(text: str) -> Target:
    """The target that a text states. ConfigError names the part, and what could stand there."""
    bounds = []
    for part in text.replace(",", " ").split():
        match = PART.match(part)
        if match is None:
            raise ConfigError(f"target: {part!r} is not NAME<=NUMBER or NAME>=NUMBER, as in bytes<=0.2 dgauc>=0")
        name, sign, number = match.groups()
        if name not in (*SHARES, *CHANGES):
            raise ConfigError(f"target: there is no {name!r}, known are {', '.join((*SHARES, *CHANGES))}")
        bound = Bound(name, sign == "<=", float(number))
        if bound.upper != (name in (*SHARES, "dlogloss")):
            raise ConfigError(f"target: {part!r} asks for more of what should be less, or the other way round")
        if name in SHARES and not 0 < bound.value <= 1:
            raise ConfigError(f"target: {part!r} is a share of the original's, above 0 and at most 1")
        bounds.append(bound)
    if len({each.name for each in bounds}) < len(bounds):
        raise ConfigError(f"target: {text!r} bounds something twice")
    if not bounds:
        raise ConfigError("target: is empty; as in bytes<=0.2 macs<=0.125 dgauc>=0")
    return Target(tuple(bounds))
