"""A small schema, and random batches for it: what model and export tests work on."""

import numpy as np
import torch

from bundle.schema import FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from models.data.batches import Batch

USERS, TABS, ADS, TAGS, IMAGES = 20, 5, 50, 9, 30


def categorical(name: str, size: int) -> FieldSpec:
    return FieldSpec(name=name, kind=Kind.CATEGORICAL, vocabulary=name, size=size)


SCHEMA = FeatureSchema(
    user_key="user",
    ad_key="ad",
    user=Side(fields=(categorical("city", USERS), FieldSpec(name="age", kind=Kind.NUMBER))),
    context=Side(fields=(categorical("tab", TABS),)),
    ad=Side(
        fields=(
            categorical("ad", ADS),
            FieldSpec(name="tags", kind=Kind.MULTIVALUED, vocabulary="tags", size=TAGS, width=3),
            FieldSpec(name="price", kind=Kind.BUCKETED, size=4, edges=(1.0,)),
            FieldSpec(name="length", kind=Kind.NUMBER),
            FieldSpec(name="image", kind=Kind.CATEGORICAL, vocabulary="image", size=IMAGES, vector=6),
        )
    ),
    histories=(HistorySpec(name="clicks", fields=("ad", "tags", "image"), max_length=50),),
)


def random_ads(count: int, random: np.random.Generator) -> np.ndarray:
    """Encoded ads [count, 6]: ad, three tags (padded at the end), price, image."""
    tags = random.integers(1, TAGS, (count, 3))
    tags[np.arange(3) >= random.integers(1, 4, count)[:, None]] = 0
    images = random.integers(1, IMAGES, count)
    return np.column_stack([random.integers(1, ADS, count), tags, random.integers(1, 4, count), images])


def random_batch(requests: int, candidates: int, length: int, seed: int = 0) -> Batch:
    """`requests` requests of `candidates` each; histories of random length up to `length`, the first one empty."""
    random = np.random.default_rng(seed)
    total = requests * candidates
    history = random_ads(requests * length, random)[:, [0, 1, 2, 3, 5]].reshape(requests, length, 5)
    lengths = random.integers(0, length + 1, requests)
    lengths[0] = 0
    history[np.arange(length) >= lengths[:, None]] = 0
    return Batch(
        user=torch.from_numpy(random.integers(1, USERS, (requests, 1))),
        user_numbers=torch.from_numpy(random.normal(size=(requests, 1)).astype(np.float32)),
        context=torch.from_numpy(random.integers(1, TABS, (requests, 1))),
        context_numbers=torch.zeros(requests, 0),
        histories={"clicks": torch.from_numpy(history)},
        ads=torch.from_numpy(random_ads(total, random)),
        ad_numbers=torch.from_numpy(random.normal(size=(total, 1)).astype(np.float32)),
        request=torch.from_numpy(np.repeat(np.arange(requests), candidates)),
        labels=torch.from_numpy((random.random(total) < 0.3).astype(np.float32)),
        positions=torch.from_numpy(random.integers(0, 5, total)),
        rows=np.arange(total, dtype=np.int32),
        users=np.repeat(np.arange(requests), candidates),
        truth=None,
        further={"like": torch.from_numpy((random.random(total) < 0.2).astype(np.float32))},
    )


def image_vectors(seed: int = 7) -> np.ndarray:
    """The vectors of the schema's images, float16[IMAGES, 6]; those of padding and unknown are zeros."""
    vectors = np.random.default_rng(seed).normal(size=(IMAGES, 6)).astype(np.float16)
    vectors[:2] = 0
    return vectors


def shake(network: torch.nn.Module, seed: int = 0) -> None:
    """Move every parameter and every Dice statistic away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if "arena." in name and name.endswith(".weight"):
                parameter[0].zero_()
        for name, buffer in network.named_buffers():
            if name.endswith(".mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
            if name.endswith(".variance"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
