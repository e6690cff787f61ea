"""Where a graph's time goes, as ONNX Runtime's own profile says, which adds about 1 us to each node."""

import bundle.no_telemetry  # noqa: F401

# isort: split
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

KINDS = {
    "MatMul": "matrix products",
    "FusedMatMul": "matrix products",
    "Gemm": "matrix products",
    "Sigmoid": "logistic function",
    "Add": "sums and products",
    "Mul": "sums and products",
    "Gather": "look-ups",
}
REST = "all else"


def time_by_kind(graph: Path, feeds: Mapping[str, npt.NDArray[Any]], runs: int) -> dict[str, tuple[int, float]]:
    """Kind of operator -> how many nodes, and milliseconds a run: the sum of the nodes' medians. One thread."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"], event["args"]["op_name"]].append(event["dur"] / 1e3)
    found: dict[str, tuple[int, float]] = dict.fromkeys([*KINDS.values(), REST], (0, 0.0))
    for (_, operator), times in nodes.items():
        kind = KINDS.get(operator, REST)
        count, total = found[kind]
        found[kind] = count + 1, total + float(np.median(times))
    return found
