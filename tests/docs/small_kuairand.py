"""A log in KuaiRand's own layout, small, in which some videos are watched more than others and tastes can be learnt."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

USERS, VIDEOS, AUTHORS, TAGS = 240, 160, 30, 8
ROWS = {"train": 2_000, "valid": 600, "test": 600}


def write_small_kuairand(folder: Path, seed: int = 1) -> None:
    """The six Parquet files that models/configs/data/kuairand.yaml reads."""
    random = np.random.default_rng(seed)
    tags = random.integers(0, TAGS, VIDEOS)
    tastes = random.normal(0, 1.5, (USERS, TAGS))
    appeal = random.normal(0, 0.8, VIDEOS)
    time = 1_650_000_000_000
    for split, rows in ROWS.items():
        users, videos = random.integers(0, USERS, rows), random.integers(0, VIDEOS, rows)
        chance = 1 / (1 + np.exp(-(tastes[users, tags[videos]] + appeal[videos] - 0.5)))
        times = time + np.sort(random.integers(0, 86_400_000, rows))
        time += 86_400_000
        frame = {
            "user_id": users,
            "video_id": 1000 + videos,
            "time_ms": times,
            "tab": random.integers(0, 3, rows).astype(np.int16),
            "hourmin": (100 * random.integers(0, 24, rows)).astype(np.int16),
            "is_click": (random.random(rows) < chance).astype(np.int8),
        }
        pl.DataFrame(frame).write_parquet(folder / f"impressions_{split}.parquet")
    watched = [
        (1000 + random.choice(np.flatnonzero(tags == tastes[user].argmax()), random.integers(0, 20))).tolist()
        for user in range(USERS)
    ]
    lists = pl.DataFrame({"user_id": range(USERS), "long_watch_seq": watched})
    lists.write_parquet(folder / "histories.parquet")
    write_users(folder, random)
    write_videos(folder, random, tags)


def write_users(folder: Path, random: np.random.Generator) -> None:
    """users.parquet: some degrees, ranges and flags, none of which tells anything."""
    users: dict[str, object] = {
        "user_id": range(USERS),
        "user_active_degree": random.choice(["full_active", "high_active", "UNKNOWN"], USERS).tolist(),
    }
    for name in ("is_lowactive_period", "is_live_streamer", "is_video_author"):
        users[name] = random.integers(0, 2, USERS)
    for name in ("follow_user", "fans_user", "friend_user"):
        users[f"{name}_num"] = random.integers(0, 500, USERS)
        users[f"{name}_num_range"] = random.choice(["0", "(0,10]", "(10,50]"], USERS).tolist()
    users |= {"register_days": random.integers(1, 900, USERS)}
    users |= {"register_days_range": random.choice(["8-14", "15-30", "31-60"], USERS).tolist()}
    users |= {f"onehot_feat{i}": random.integers(0, 4, USERS).astype(np.float64) for i in range(18)}
    pl.DataFrame(users).write_parquet(folder / "users.parquet")


def write_videos(folder: Path, random: np.random.Generator, tags: npt.NDArray[np.int64]) -> None:
    """videos.parquet, with the tags that tell."""
    pl.DataFrame(
        {
            "video_id": 1000 + np.arange(VIDEOS),
            "author_id": random.integers(0, AUTHORS, VIDEOS),
            "video_type": ["NORMAL"] * VIDEOS,
            "upload_dt": ["2022-04-10"] * VIDEOS,
            "upload_type": random.choice(["Web", "ShortImport", "LongImport"], VIDEOS).tolist(),
            "video_duration": random.integers(1_000, 60_000, VIDEOS).astype(np.float64),
            "music_id": random.integers(0, 40, VIDEOS),
            "music_type": [4.0] * VIDEOS,
            "tag": [str(tag) for tag in tags],
            "server_width": [720.0] * VIDEOS,
            "server_height": [1280.0] * VIDEOS,
            "visible_status": [0.0] * VIDEOS,
        }
    ).write_parquet(folder / "videos.parquet")
