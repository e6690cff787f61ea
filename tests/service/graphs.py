"""The graphs of the small true bundle of tests/service/world.py, node by node."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from tests.service.nodes import Nodes

DIMENSION = 4
OFFSET = -1.0
RUNGS = {"small": 0.25, "light": 0.5}
"""Further rungs of a ladder, in falling cost, and what stands in them for the user's history."""
MATCH = 0.5
"""Added to the logit for each click on an ad of the candidate's category."""

RUNG_INPUTS: Sequence[tuple[str, str, tuple[int | str, ...]]] = (
    ("user", "int64", (2,)),
    ("context", "int64", (2,)),
    ("user_numbers", "float32", (1,)),
    ("ads", "int64", ("ads", 2)),
    ("ad_numbers", "float32", ("ads", 1)),
)
QUERY_INPUTS: Sequence[tuple[str, str, tuple[int | str, ...]]] = (
    ("user", "int64", (2,)),
    ("context", "int64", (2,)),
    ("history_clicks", "int64", ("length_clicks", 2)),
)
FINERANK_INPUTS: Sequence[tuple[str, str, tuple[int | str, ...]]] = (
    *QUERY_INPUTS,
    ("user_numbers", "float32", (1,)),
    ("history_searches", "int64", ("length_searches", 1)),
    ("ads", "int64", ("ads", 2)),
    ("ad_numbers", "float32", ("ads", 1)),
)


def query_graph() -> onnx.ModelProto:
    """`expected_query`."""
    g = Nodes()
    one_hot = g("Gather", g.constant(np.eye(8)[:, 2:6], np.float32), g.column("history_clicks", 0), axis=0)
    likes = g("ReduceSum", one_hot, g.constant([0], np.int64), keepdims=0)
    g("Add", likes, g.number("context", 0, 0.1), output="query")
    g("Add", g.number("user", 0, 0.01), g.constant(OFFSET, np.float32), output="offset")
    return g.model("query", QUERY_INPUTS, [("query", (DIMENSION,)), ("offset", ())])


def finerank_graph() -> onnx.ModelProto:
    """`expected_logits`."""
    g = Nodes()
    category = g("Unsqueeze", g.column("ads", 0), g.constant([0], np.int64))

    def matches(history: str, weight: float) -> str:
        past = g("Unsqueeze", g.column(history, 0), g.constant([1], np.int64))
        equal = g("Cast", g("Equal", past, category), to=TensorProto.FLOAT)
        count = g("ReduceSum", equal, g.constant([0], np.int64), keepdims=0)
        return g("Mul", count, g.constant(weight, np.float32))

    total = g("Add", matches("history_clicks", MATCH), matches("history_searches", 0.25))
    g("Add", total, rest(g), output="logits")
    return g.model("finerank", FINERANK_INPUTS, [("logits", ("ads",))])


def rung_graph(name: str) -> onnx.ModelProto:
    """`expected_logits` of a further rung."""
    g = Nodes()
    g("Add", rest(g), g.constant(RUNGS[name], np.float32), output="logits")
    return g.model("finerank", RUNG_INPUTS, [("logits", ("ads",))])


def rest(g: Nodes) -> str:
    """What `expected_logits` adds whatever the history."""
    price = g("Mul", g("Log", g.column("ad_numbers", 0)), g.constant(0.1, np.float32))
    brand = g("Mul", g("Cast", g.column("ads", 1), to=TensorProto.FLOAT), g.constant(0.01, np.float32))
    shared = g("Add", g.number("context", 0, 0.1), g.number("user", 0, 0.05))
    shared = g("Add", g("Add", shared, g.number("user_numbers", 0, 0.2)), g.constant(-3.0, np.float32))
    return g("Add", g("Add", price, brand), shared)
