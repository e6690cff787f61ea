"""The rows of crosses are the same in ONNX, for the largest ids there can be too."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from bundle.schema import FeatureSchema, FieldSpec, Kind, Side
from export.to_onnx import export_graph
from models.networks.crosses import Crosses
from tests.models.world import categorical

LARGE = 2**31 - 1


class Rows(nn.Module):
    """Ids of two fields -> rows."""

    def __init__(self, crosses: Crosses) -> None:
        super().__init__()
        self.crosses = crosses

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        return self.crosses.ids(0, feeds["one"], feeds["other"])


def test_rows_in_onnx_are_those_of_torch_and_of_pythons_integers(tmp_path: Path) -> None:
    schema = FeatureSchema(
        user_key="user",
        ad_key="ad",
        user=Side(fields=(categorical("city", LARGE),)),
        ad=Side(fields=(FieldSpec(name="ad", kind=Kind.CATEGORICAL, vocabulary="ad", size=LARGE),)),
    )
    crosses = Crosses(schema, (("user.city", "ad.ad"),), 100_003)
    random = np.random.default_rng(0)
    one, other = (np.append(random.integers(0, LARGE, 499), LARGE - 1)[:, None] for _ in range(2))
    export_graph(Rows(crosses), {"one": ("n", 1), "other": ("n", 1)}, ["rows"], tmp_path / "rows.onnx")
    session = ort.InferenceSession(str(tmp_path / "rows.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"one": one, "other": other})
    expected = [
        (int(a) * LARGE + int(b)) % (2**31 - 1) * 48271 % (2**31 - 1) % 100_003
        for a, b in zip(one[:, 0], other[:, 0], strict=True)
    ]
    assert found.ravel().tolist() == expected
    assert crosses.ids(0, torch.from_numpy(one), torch.from_numpy(other)).ravel().tolist() == expected
