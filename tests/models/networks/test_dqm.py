import torch
from torch import Tensor

from models.networks.dqm import Dqm
from tests.models.networks.small import small
from tests.models.world import random_batch


def test_dqm_is_the_inner_product_of_three_domains() -> None:
    dqm = small("dqm")
    assert isinstance(dqm, Dqm)
    batch = random_batch(3, 2, 4)
    with torch.no_grad():
        pooled: list[Tensor] = []
        for ids in batch.histories["clicks"]:
            real = ids[ids[:, 0] != 0]
            encoder = dqm.behaviours["history_clicks"]
            pooled.append(encoder(dqm.arena, real).mean(0) if len(real) else torch.zeros(8))
        user = torch.cat([dqm.user(dqm.arena, batch.user, batch.user_numbers), torch.stack(pooled)], dim=-1)
        u = dqm.user_tower(user)
        scene = dqm.scene_tower(dqm.context(dqm.arena, batch.context, batch.context_numbers))
        s, bias = scene[:, :5], scene[:, 5]
        vectors = dqm.ad_vectors(batch.ads, batch.ad_numbers)
        a, ad_bias = vectors[:, :5], vectors[:, 5]
        r = batch.request
        expected = (u[r] * a).sum(1) + (s[r] * a).sum(1) + (u * s).sum(1)[r] + bias[r] + ad_bias
        torch.testing.assert_close(dqm(batch), expected)
