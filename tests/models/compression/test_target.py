"""What a target says, what it holds of a candidate, and what is refused."""

import pytest

from models.compression.target import read_target
from models.config import ConfigError

FOUND = {"bytes": 0.2, "macs": 0.1, "parameters": 0.3, "dauc": 0.001, "dgauc": -0.0001, "dlogloss": 0.0}


def test_a_target_names_what_a_candidate_misses() -> None:
    assert read_target("bytes<=0.2 macs<=0.125 dauc>=0").missed(FOUND) == []
    assert read_target("bytes<=0.19, dgauc>=0 dlogloss<=0").missed(FOUND) == ["bytes<=0.19", "dgauc>=0"]


def test_what_shapes_decide_is_known() -> None:
    target = read_target("bytes<=0.2 dgauc>=-1e-3 parameters<=1")
    assert [str(each) for each in target.sizes] == ["bytes<=0.2", "parameters<=1"]
    assert str(target) == "bytes<=0.2 dgauc>=-0.001 parameters<=1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "target: is empty"),
        ("bytes<0.2", "'bytes<0.2' is not NAME<=NUMBER"),
        ("bytes<=", "'bytes<=' is not NAME<=NUMBER"),
        ("latency<=1", "there is no 'latency', known are bytes, macs, parameters, dauc, dgauc, dlogloss"),
        ("bytes>=0.2", "'bytes>=0.2' asks for more of what should be less"),
        ("dgauc<=0", "'dgauc<=0' asks for more"),
        ("dlogloss>=0", "'dlogloss>=0' asks for more"),
        ("bytes<=5", "'bytes<=5' is a share of the original's"),
        ("macs<=0", "'macs<=0' is a share of the original's"),
        ("bytes<=0.2 bytes<=0.3", "bounds something twice"),
    ],
)
def test_a_wrong_target_is_refused_by_its_part(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_target(text)
    assert said in str(error.value)
