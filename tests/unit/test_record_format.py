"""The wire format of records, against the published format and the client's own reader."""

from __future__ import annotations

import contextlib
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.brokers.record_format import Batch, append_records, decode_records, varint
from daemon.records import Message, Record

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


BATCH = Batch("t", 3, 100, 1000)


def decoded(data: bytes, count: int, batch: Batch = BATCH) -> list[Record]:
    return list(decode_records(data, count, batch))


def encoded(messages: list[Message]) -> bytearray:
    """The records alone."""
    body = bytearray()
    append_records(body, messages)
    return body


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
    assert bytes(builder.build()[61:]) == bytes(encoded(messages))


@settings(deadline=None)  # the first example compiles
@given(messages=MESSAGES)
def test_what_was_encoded_is_decoded(messages: list[Message]) -> None:
    """Records come back in their order and place, whatever is null or empty in them."""
    found = decoded(bytes(encoded(messages)), len(messages))
    assert [Message(each.key, each.value, each.headers) for each in found] == messages
    assert [(each.topic, each.partition, each.offset, each.timestamp_ms) for each in found] == [
        ("t", 3, 100 + i, 1000) for i in range(len(messages))
    ]
    assert {each.timestamp_ms for each in decoded(bytes(encoded(messages)), len(messages), BATCH._replace(broker_ms=7))} == {7}


@settings(deadline=None)
@given(messages=MESSAGES, gaps=st.lists(st.integers(0, 2**40), min_size=200, max_size=200))
def test_the_client_reads_the_same(messages: list[Message], gaps: list[int]) -> None:
    """A batch of the client's own builder, with gaps between timestamps, reads as by the client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for offset, (gap, (key, value, headers)) in enumerate(zip(gaps, messages, strict=False)):
        builder.append(offset, 1_700_000_000_000 + gap, key, value, list(headers))
    built = bytes(builder.build())
    expected = [Record("t", 3, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in DefaultRecordBatch(built)]
    assert decoded(built[61:], len(messages), Batch("t", 3, 0, builder._first_timestamp)) == expected


@settings(deadline=None)
@given(messages=MESSAGES, data=st.data())
def test_cut_records_raise(messages: list[Message], data: st.DataObject) -> None:
    """Whatever is cut off, or left over, is noticed."""
    whole = bytes(encoded(messages))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(ValueError, match="no whole record"):
        decoded(cut, len(messages))
    with pytest.raises(ValueError, match="bytes are left"):
        decoded(whole + b"\0", len(messages))


@settings(deadline=None)
@given(junk=st.binary(max_size=200))
def test_junk_ends(junk: bytes) -> None:
    """Any bytes are records or raise the error."""
    with contextlib.suppress(ValueError):
        decoded(junk, 3)


def test_header_names_that_are_no_utf8() -> None:
    """Bytes that are not ASCII become question marks where the whole is no UTF-8; other names stay."""
    header = b"\x06a\xffb\x02x"
    record = b"\x00\x00\x00\x01\x01\x04" + header + b"\x04\xc3\xa9\x01"
    (found,) = decoded(varint(len(record)) + record, 1)
    assert found.headers == (("a?b", b"x"), ("\u00e9", b""))


def test_records_before_the_broken_one_are_given() -> None:
    """So that reading stops at the broken one and not before."""
    messages = [Message(None, b"%d" % i) for i in range(5)]
    whole = bytes(encoded(messages))
    records = decode_records(whole[:-1], 5, BATCH)
    assert [next(records).value for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    with pytest.raises(ValueError, match="record 4 of 5"):
        next(records)


def test_a_count_that_cannot_be_is_refused() -> None:
    """Before room is made for it."""
    for count in (-1, 2**31 - 1):
        with pytest.raises(ValueError, match=r"are left|no whole record"):
            decoded(b"abc", count)


@pytest.mark.parametrize("number", [0, -1, 63, -64, 64, 8191, -8192, 8192, 2**31, -(2**31), 2**62, -(2**63), 2**63 - 1])
def test_numbers_of_any_length_are_read(number: int) -> None:
    """A timestamp may lie any distance from its batch's first."""
    record = b"\x00" + varint(number) + b"\x00\x01\x01\x00"
    (found,) = decoded(varint(len(record)) + record, 1, BATCH._replace(first_ms=0))
    assert found.timestamp_ms == number
