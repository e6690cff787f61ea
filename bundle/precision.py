"""What a graph stores its tables in and computes in, and how far that takes it from the fp32 graph; in the manifest."""

from typing import Literal

from pydantic import Field

from bundle.schema import Frozen

Number = Literal["fp32", "fp16", "int8"]
"""What is computed in."""
Stored = Literal["fp32", "fp16", "int8", "int4"]
"""What tables are stored in."""
Asked = Literal["fp32", "fp16", "int8", "auto"]


class Deviation(Frozen):
    """Scores of a graph against those of the fp32 graph, over real requests."""

    requests: int = Field(gt=0)
    candidates: int = Field(gt=0)
    """In all of the requests together."""
    logit_max: float
    """Largest |difference| of a logit."""
    pctr_max: float
    """Largest |difference| of a click probability."""
    pctr_share: float
    """Mean |difference| of a click probability ÷ mean click probability."""
    top10: float
    """Share of its ten best ads whose click probability by the fp32 graph is at most 0.5 % below that of its tenth."""


class Trial(Frozen):
    """One thing that was tried when the graph was exported, against what stood before it."""

    what: str
    bytes: int = Field(ge=0)
    """Of all weights of the graph."""
    time_ratio: float
    """Its time ÷ that of what it was compared with, median of pairs, on the machine that exported; 0: not measured."""
    deviation: Deviation | None
    """None: its scores were no numbers."""
    taken: bool
    why: str


class Precision(Frozen):
    """How one graph is stored and computed."""

    asked: Asked = "fp32"
    tables: Stored = "fp32"
    """Embedding tables, but for those of `given`: int8 and int4 with one scale a row."""
    given: dict[str, Stored] = Field(default_factory=dict)
    """Tables that the network itself has in fewer bytes than fp32 (models/networks/rounding.py): by name, in what. The
    graph computes what such a network does, so this is no deviation from it."""
    dense: Number = "fp32"
    """Everything else. int8: the products named in `int8_nodes`, the rest stays fp32."""
    int8_nodes: tuple[str, ...] = ()
    deviation: Deviation | None = None
    """None: fp32."""
    trials: tuple[Trial, ...] = ()

    @property
    def is_reduced(self) -> bool:
        """Whether anything is not fp32."""
        return (self.tables, self.dense) != ("fp32", "fp32")
