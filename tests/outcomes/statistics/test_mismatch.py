"""The evidence that users do not come as they were dealt."""

from itertools import product
from math import factorial, prod

import numpy as np
import pytest

from outcomes.statistics.mismatch import log_e_value

SHARES = (0.5, 0.3, 0.2)


@pytest.mark.parametrize("users", [1, 2, 7])
def test_its_mean_is_1_when_they_come_as_they_were_dealt(users: int) -> None:
    """Over every possible outcome: an e-value by its definition, exactly."""
    whole = 0.0
    for counts in product(range(users + 1), repeat=3):
        if sum(counts) == users:
            ways = factorial(users) / prod(map(factorial, counts))
            probability = ways * prod(share**count for share, count in zip(SHARES, counts, strict=True))
            whole += probability * float(np.exp(log_e_value(np.array(counts, float), SHARES)))
    assert whole == pytest.approx(1.0)


def test_without_users_there_is_no_evidence() -> None:
    assert log_e_value(np.zeros((2, 3)), SHARES) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_alarms_are_as_seldom_as_stated_and_a_mismatch_is_found() -> None:
    random = np.random.default_rng(1)
    batches = random.multinomial(100, SHARES, (400, 100)).cumsum(axis=1).astype(float)
    assert (log_e_value(batches, SHARES) > np.log(20)).any(axis=1).mean() < 0.05
    skewed = random.multinomial(100, (0.53, 0.28, 0.19), (400, 100)).cumsum(axis=1).astype(float)
    assert (log_e_value(skewed, SHARES) > np.log(20)).any(axis=1).mean() > 0.8


def test_a_gross_mismatch_is_found_in_a_few_hundred_users() -> None:
    assert log_e_value(np.array([300.0, 200.0]), (0.5, 0.5)) > np.log(100)


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0, 0.0), (1.2, -0.2)])
def test_shares_that_cannot_be_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="shares are"):
        log_e_value(np.array([1.0, 1.0]), shares)
