"""What training would say to a request: the torch network on features encoded column-wise from the raw files.

The service encodes one mapping at a time from a packed record; here nothing of that is used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bundle.encoding import Encoder
from bundle.schema import FIRST_KNOWN, Side
from models.checkpoint import Checkpoint
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.funnel import with_candidates


def batch_of(
    data: PreparedData, profile: Mapping[str, Any], clicks: Sequence[int | str], context: Mapping[str, Any]
) -> Batch:
    """One request without candidates. `clicks`: all ad ids clicked, oldest first; absent values are unknown."""
    encoder = Encoder(data.schema, data.vocabularies)

    def side(fields: Side, values: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        columns = {field.name: np.array([values.get(field.name)], dtype=object) for field in fields.fields}
        ids, numbers = encoder.encode_rows(fields, columns, 1)
        return torch.from_numpy(ids).long(), torch.from_numpy(numbers)

    (history,) = data.schema.histories
    rows = data.ads.index.ids_of(np.array(clicks, dtype=object)[-history.max_length :])
    columns = data.schema.history_columns(history)
    behaviours = data.ads.fields[rows][:, columns] if len(rows) else np.zeros((1, len(columns)), dtype=np.int32)
    user, user_numbers = side(data.schema.user, profile)
    context_ids, context_numbers = side(data.schema.context, context)
    empty = torch.zeros(0, dtype=torch.int64)
    return Batch(
        user=user,
        user_numbers=user_numbers,
        context=context_ids,
        context_numbers=context_numbers,
        histories={history.name: torch.from_numpy(behaviours).long().unsqueeze(0)},
        ads=empty,
        ad_numbers=torch.zeros(0),
        request=empty,
        labels=torch.zeros(0),
        positions=empty,
        rows=np.zeros(0, dtype=np.int32),
        users=np.zeros(0, dtype=np.int64),
        truth=None,
    )


def pctr_of(din: Checkpoint, data: PreparedData, batch: Batch, ads: Sequence[int | str]) -> npt.NDArray[np.float64]:
    """torch's click probability of each ad; an unknown one is scored as such."""
    rows = np.array([data.ads.index.id_of(ad) for ad in ads])
    ids, numbers = torch.from_numpy(data.ads.fields[rows]).long(), torch.from_numpy(data.ads.numbers[rows])
    with torch.no_grad():
        logits = din.network()(with_candidates(batch, ids, numbers))
    return torch.sigmoid(logits.double()).numpy()


def all_ads(data: PreparedData) -> list[int | str]:
    """Every ad id, in catalogue order."""
    return [data.ads.index.value_of(row) for row in range(FIRST_KNOWN, data.ads.index.size)]
