"""The records of the kinds other than the default, to the byte, and who else must be able to read them."""

from __future__ import annotations

import json

import numpy as np

from daemon import outputs
from daemon.comparison import difference
from models.engine import Answers, ChainDigests, Scenarios, Smoothed
from tests import examples

NOON_MS = 1_795_687_200_000
MINUTE_MS = 60_000


def one(output: object, **settings: object) -> bytes:
    engine = examples.settings(**settings)
    (encoded,) = outputs.encode(output, ["pump-7"], np.array([NOON_MS]), engine, "a1b2")
    return encoded


def answers(numbers: list[list[float]]) -> Answers:
    first_ms, last_ms = np.array([NOON_MS - 3 * MINUTE_MS]), np.array([NOON_MS])
    return Answers(np.array([numbers]), first_ms, last_ms, np.array([4]), np.array([True]))


WINDOW = b'"window":{"from":"2026-11-26T09:57:00.000Z","to":"2026-11-26T10:00:00.000Z","readings":4}'


def test_class_bytes() -> None:
    """A probability for each label, in the settings' order."""
    encoded = one(answers([[0.25, 0.75]]), kind="many_to_one", predicts="class", labels=("idle", "busy"))
    head = b'{"stream":"pump-7","time":"2026-11-26T10:00:00.000Z","model_version":"a1b2",'
    assert encoded == head + WINDOW + b',"classes":{"idle":0.25,"busy":0.75}}'


def test_number_bytes() -> None:
    """Quantiles of a label are called label, those of the next mean as their targets."""
    label = one(answers([[1.23456789, 2.0, 3.0]]), kind="many_to_one", predicts="label")
    assert label.endswith(WINDOW + b',"quantiles":{"label":{"0.1":1.23457,"0.5":2.0,"0.9":3.0}}}')
    values = {"temp": "t", "rh": "r"}
    both = one(answers([[1, 2, 3], [4, 5, 6]]), kind="many_to_one", values=values)
    assert json.loads(both)["quantiles"] == {
        "temp": {"0.1": 1.0, "0.5": 2.0, "0.9": 3.0},
        "rh": {"0.1": 4.0, "0.5": 5.0, "0.9": 6.0},
    }


def test_scenario_bytes() -> None:
    """A list of trajectories for each target; the interval is null while unknown."""
    paths = np.array([[[[1.0, 2.0], [1.5, -0.0]]]])  # (B, T, S, K)
    assert one(Scenarios(paths, np.array([0])), kind="one_to_many", horizon=2, scenarios=2) == (
        b'{"stream":"pump-7","time":"2026-11-26T10:00:00.000Z","interval_ms":null,"model_version":"a1b2",'
        b'"scenarios":{"value":[[1.0,2.0],[1.5,0.0]]}}'
    )


def test_smoothed_bytes() -> None:
    """The time is that of the reading it is about, whose own value is there too, null where it is missing."""
    output = Smoothed(np.array([[[1.0, 2.0, 3.0]]]), np.array([[np.nan]]), np.array([NOON_MS - MINUTE_MS]), np.array([True]))
    assert one(output, kind="smoother", lag=5) == (
        b'{"stream":"pump-7","time":"2026-11-26T09:59:00.000Z","lag":5,"model_version":"a1b2",'
        b'"readings":{"value":null},"quantiles":{"value":{"0.1":1.0,"0.5":2.0,"0.9":3.0}}}'
    )


def test_digest_bytes() -> None:
    """The chain engine's record is a digest in place of a forecast."""
    assert one(ChainDigests(np.arange(32, dtype=np.uint8)[None])) == (
        b'{"stream":"pump-7","time":"2026-11-26T10:00:00.000Z","model_version":"a1b2","digest":'
        b'"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}'
    )


def test_no_rows() -> None:
    """A wave in which no window ends gives no record."""
    none = Answers(np.zeros((0, 1, 3)), *(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0, bool))
    assert outputs.encode(none, [], np.zeros(0, np.int64), examples.settings(kind="many_to_one"), "a1b2") == []


def test_numbers_that_are_not_finite() -> None:
    """The bytes are JSON whatever comes out."""
    assert json.loads(one(answers([[np.nan, np.inf, 1.0]]), kind="many_to_one"))["quantiles"]["value"]["0.1"] is None


def test_a_difference_is_found_in_its_field() -> None:
    """The audit names the field of these records as of any other."""
    sent = one(answers([[0.25, 0.75]]), kind="many_to_one", predicts="class", labels=("idle", "busy"))
    found = difference(sent, sent.replace(b"0.75", b"0.76"), None)
    assert found is not None
    assert found[0] == "classes.busy"
