"""The law of dead letters: whatever a record holds, its letter fits, and nothing is cut without need."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.letters import CUT_BYTES, encode_letter
from daemon.records import DeadLetter, Record


@settings(deadline=None)
@given(
    st.integers(0, 200_000),
    st.integers(0, 200_000),
    st.lists(st.tuples(st.text("aé€😀.", max_size=50), st.integers(0, 9000)), max_size=400),
    st.integers(40_000, 150_000),
    st.text(max_size=3000),
)
def test_dead_letters_fit(key_bytes: int, value_bytes: int, headers: list[tuple[str, int]], max_bytes: int, message: str) -> None:
    """A dead letter fits into the topic's largest message with all its lengths counted, and cuts only what it must."""
    bad = Record("t" * 249, 2**31, 2**62, 0, b"k" * key_bytes, b"v" * value_bytes, tuple((n, b"h" * s) for n, s in headers))
    letter = encode_letter(DeadLetter(bad, 100_000, "stream_id", message), max_bytes)
    key, value = letter.key or b"", letter.value or b""
    # 61 bytes of batch header; 36 of the record's own lengths, attributes and deltas; 10 of lengths a header.
    size = 61 + 36 + len(key) + len(value) + sum(10 + len(name.encode()) + len(content) for name, content in letter.headers)
    assert size <= max_bytes
    noted = {name for name, _ in letter.headers}
    assert ("recurd.value_bytes" in noted) == (len(value) < value_bytes)
    assert ("recurd.key_bytes" in noted) == (len(key) < key_bytes)
    if key_bytes + value_bytes + 16_384 <= max_bytes:
        assert (key_bytes, value_bytes) == (len(key), len(value))
    elif key_bytes + CUT_BYTES + 16_384 <= max_bytes:
        assert (key_bytes, min(value_bytes, CUT_BYTES)) == (len(key), len(value))
