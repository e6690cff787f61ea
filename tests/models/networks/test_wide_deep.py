"""Wide & Deep is the sum of its three parts, learnt under one loss."""

import torch

from models.networks.config import GwenConfig
from models.networks.gwen import Gwen
from models.networks.wide_deep import WideDeep
from tests.models.networks.plain import plain_fields
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch


def test_wide_part_and_gwen_together() -> None:
    both, batch = small("wide-deep"), random_batch(3, 2, 5)
    assert isinstance(both, WideDeep)
    gwen = Gwen(GwenConfig(kind="gwen", embedding=4, hidden=(8, 4)), SCHEMA).eval()
    names = gwen.state_dict().keys()
    gwen.load_state_dict({name: value for name, value in both.state_dict().items() if name in names})
    first = both.first_order
    with torch.no_grad():
        linear = torch.stack([torch.cat(plain_fields(first.vectors, first.arena, batch, m)).sum() for m in range(6)])
        torch.testing.assert_close(both(batch), linear + both.crosses(batch) + gwen(batch), rtol=0, atol=1e-5)
