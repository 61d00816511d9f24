"""The wire format of records, against the published format and the client's own reader."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.brokers.record_format import encode_records, varint
from daemon.records import Message

MESSAGES = st.lists(
    st.builds(
        Message,
        st.none() | st.binary(max_size=40),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=20)), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=200,
)


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, b"\x00"), (-1, b"\x01"), (1, b"\x02"), (63, b"\x7e"), (64, b"\x80\x01"), (300, b"\xd8\x04")]
)
def test_varint_is_zigzag(number: int, encoded: bytes) -> None:
    """As in protocol buffers: small magnitudes are short."""
    assert varint(number) == encoded


@settings(deadline=None)  # the first example imports the client
@given(messages=MESSAGES)
def test_the_client_writes_the_same_bytes(messages: list[Message]) -> None:
    """One batch of any messages equals, to the byte, the one that the client builds record by record."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from kafka.record.default_records import DefaultRecordBatchBuilder
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for offset, (key, value, headers) in enumerate(messages):
        builder.append(offset, 1_700_000_000_000, key, value, list(headers))
    assert bytes(builder.build()[61:]) == bytes(encode_records(messages))
