"""JSON of the ordinary shape, read by compiled loops: lines of a recording, and values that hold readings, many at once.

What is not ordinary (\\u in a line, any escape in a reading, nested fields, a field twice, and all that is wrong) is left to the
parsers of `daemon.recording` and `daemon.codec`, which know the whole of JSON and say what is wrong. What these loops do read is
what those would.

Nothing of ours is imported but the compiler: the machine code is made anew when this file changes.
"""

from __future__ import annotations

import math

import numpy as np

from models.compiled import compiled, part

_QUOTE, _BACKSLASH, _COMMA, _COLON, _DOT, _MINUS, _ZERO, _NEWLINE, _T, _Z = (ord(sign) for sign in '"\\,:.-0\nTZ')
_DELETE, _FIRST_CONTROL = 0x7F, (0xC2, 0xA0)  # the control characters beyond ASCII are C2 80 to C2 9F in UTF-8
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = (ord(sign) for sign in "{}[]")


def _bytes(text: str) -> np.ndarray:
    return np.array(list(text.encode()), np.uint8)


# -- lines of a recording ---------------------------------------------------------------------------------------------------

#: Columns of a record: partition, offset, timestamp; where its key and its value begin (-1: null) and end; its number.
PARTITION, OFFSET, TIMESTAMP, KEY, KEY_END, VALUE, VALUE_END, NUMBER = range(8)
COLUMNS = 8

_PARTITION_, _OFFSET_, _TIMESTAMP_ = _bytes('{"partition":'), _bytes(',"offset":'), _bytes(',"timestamp":')
_KEY_, _VALUE_, _TOPIC_, _END_ = _bytes(',"key":"'), _bytes(',"value":"'), _bytes(',"topic":"'), _bytes("}\n")
#: What stands for an escaped character, by the character behind the backslash; 0: it is not ordinary.
_ESCAPED = np.zeros(256, np.uint8)
for _behind, _meant in zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[ord(_behind)] = ord(_meant)


@compiled
def read_lines(
    text: np.ndarray, at: int, topic: np.ndarray, newest: np.ndarray, columns: np.ndarray, row: int, data: np.ndarray, used: int
) -> tuple[int, int, int, int]:
    """Read lines as `daemon.recording.Writer` writes them, until one that is not ordinary.

    Args:
        text: uint8, whole lines, each with its newline; UTF-8.
        at: Where the first of them begins.
        topic: uint8, the topic that a line must name; none where it must not name one.
        newest: int64 (P,), the newest offset of each partition, which must rise; changed. Others are not ordinary.
        columns: int64 (N, COLUMNS), filled from `row` on: at least a row a line.
        row: The next row.
        data: uint8, filled from `used` on with keys and values: as long as the text is long enough.
        used: The bytes of it that are in use.

    Returns:
        Where the line begins that is not ordinary, or the text ends; the lines before it, blank ones among them; the next row;
        the bytes in use.
    """
    lines = 0
    while at < len(text):
        if text[at] == _NEWLINE:
            at, lines = at + 1, lines + 1
            continue
        end, filled = _read_line(text, at, topic, columns[row], data, used)
        if end < 0:
            break
        partition, offset = columns[row, PARTITION], columns[row, OFFSET]
        if partition >= len(newest) or offset <= newest[partition]:
            break
        newest[partition] = offset
        columns[row, NUMBER] = row
        at, used, lines, row = end, filled, lines + 1, row + 1
    return at, lines, row, used


@part
def _read_line(text: np.ndarray, at: int, topic: np.ndarray, record: np.ndarray, data: np.ndarray, used: int) -> tuple[int, int]:
    """One line into a row and the data: where the next one begins, -1 where it is not ordinary; the bytes in use."""
    at = _after(text, at, _PARTITION_)
    at, record[PARTITION] = _natural(text, at)
    at = _after(text, at, _OFFSET_)
    at, record[OFFSET] = _natural(text, at)
    record[TIMESTAMP] = -1
    ahead = _after(text, at, _TIMESTAMP_)
    if ahead >= 0:
        at, record[TIMESTAMP] = _natural(text, ahead)
    for start, name in ((KEY, _KEY_), (VALUE, _VALUE_)):
        record[start] = record[start + 1] = -1
        ahead = _after(text, at, name)
        if ahead >= 0:
            record[start] = used
            at, used = _unescape(text, ahead, data, used)
            record[start + 1] = used
    if len(topic) > 0:
        at = _after(text, _after(text, _after(text, at, _TOPIC_), topic), _END_TOPIC)
    return _after(text, at, _END_), used


_END_TOPIC = _bytes('"')


@part
def _after(text: np.ndarray, at: int, wanted: np.ndarray) -> int:
    """Where wanted bytes end that stand at a position; -1 where they do not."""
    if at < 0 or at + len(wanted) > len(text):
        return -1
    for j in range(len(wanted)):
        if text[at + j] != wanted[j]:
            return -1
    return at + len(wanted)


@part
def _natural(text: np.ndarray, at: int) -> tuple[int, int]:
    """Where a natural number of at most 18 digits ends, and the number; -1 where there is none."""
    if at < 0:
        return -1, -1
    start, number = at, np.int64(0)
    while at < len(text) and 0 <= np.int64(text[at]) - _ZERO <= 9:
        number = number * 10 + (np.int64(text[at]) - _ZERO)
        at += 1
        if at - start > 18:
            return -1, -1
    if at == start or (text[start] == _ZERO and at > start + 1):
        return -1, -1
    return at, number  # type: ignore[return-value]


@part
def _unescape(text: np.ndarray, at: int, data: np.ndarray, used: int) -> tuple[int, int]:
    """Put what a string holds into the data: where it ends, behind its quote, -1 where it is not ordinary; bytes in use."""
    while at < len(text):
        byte = text[at]
        if byte == _QUOTE:
            return at + 1, used
        if byte == _BACKSLASH:
            at += 1
            byte = _ESCAPED[text[at]] if at < len(text) else np.uint8(0)
            if byte == 0:
                return -1, used
        elif byte < 32 or byte == _DELETE:
            return -1, used
        data[used] = byte
        at, used = at + 1, used + 1
    return -1, used


# -- readings ---------------------------------------------------------------------------------------------------------------

#: No reading in JSON is shorter: {"a":"b","c":0}; and a further channel takes no less than ,"d":0
LEAST_READING_BYTES, LEAST_CHANNEL_BYTES = 15, 6
#: Most fields that can be told apart: a bit of an int64 each.
MOST_FIELDS = 62

# What `daemon.codec` and these loops must agree about stands here, since what is compiled sees no other file.
#: Numbers of this magnitude and above are milliseconds, smaller ones seconds (1e11 s is the year 5138, 1e11 ms is 1973).
FIRST_MS = 1e11
FIRST_TIME_MS = -62_135_596_800_000  # 0001-01-01T00:00:00.000Z
LAST_TIME_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
#: No stream id may begin so: keys of our own records do.
RESERVED_PREFIX = "__recurd"
MAX_ID_CHARACTERS = 256

_MAX_DIGITS_BEFORE = 15  # before the point: such numbers are below `codec.MAX_MAGNITUDE`
_RESERVED = _bytes(RESERVED_PREFIX)
_EXACT = 2**53
_TENS = np.array([float(f"1e{power}") for power in range(23)])
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_NULL, _TRUE, _FALSE = _bytes("null"), _bytes("true"), _bytes("false")


@compiled
def read_readings(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    timestamp_ms: np.ndarray,
    names: np.ndarray,
    name_ends: np.ndarray,
    max_bytes: int,
    max_elements: int,
    counts: np.ndarray,
    time_ms: np.ndarray,
    values: np.ndarray,
    unsure: np.ndarray,
    ids: np.ndarray,
) -> tuple[int, int, int]:
    """Read the values of N records, each a reading or a list of them, where they are ordinary.

    Args:
        data: uint8, in which the values lie; UTF-8.
        starts: int64 (N,), where each begins.
        ends: int64 (N,), and ends.
        timestamp_ms: int64 (N,), the time of a reading that has none; -1: it must have one.
        names: uint8, the fields of stream, time and C channels, one after the other.
        name_ends: int64 (2 + C,), at most `MOST_FIELDS`.
        max_bytes: Of a value.
        max_elements: Of a list.
        counts: int64 (N,), filled: the readings of each record, 0 where it is not ordinary.
        time_ms: int64 (R,), filled. R is at least N + 1 and a reading for each of the bytes that it takes at least.
        values: float64 (R, C), filled; NaN is missing.
        unsure: int64 (R C, 3), filled: numbers with more digits than this can round: their place in the values, counted through,
            and where they begin and end.
        ids: uint8, filled: the stream ids, each with a newline behind it. As long as the values together is long enough.

    Returns:
        How many readings, unsure numbers and bytes of ids there are.
    """
    count, doubts, used = 0, 0, 0
    for n in range(len(counts)):
        counts[n] = 0
        at, end = _blank(data, starts[n], ends[n]), ends[n]
        if end - starts[n] > max_bytes or at >= end:
            continue
        first, first_doubt, first_used = count, doubts, used
        listed = data[at] == _OPEN_LIST
        if listed:
            at = _blank(data, at + 1, end)
        while at >= 0:
            at, doubts, used = _read_reading(
                data, at, end, timestamp_ms[n], names, name_ends, count, time_ms, values, unsure, doubts, ids, used
            )
            if at < 0:
                break
            count += 1
            at = _blank(data, at, end)
            if not listed or at >= end or data[at] != _COMMA:
                break
            at = _blank(data, at + 1, end)
        if at >= 0 and listed:
            at = _blank(data, at + 1, end) if at < end and data[at] == _CLOSE_LIST else -1
        if at == end and count - first <= max_elements:
            counts[n] = count - first
        else:
            count, doubts, used = first, first_doubt, first_used
    return count, doubts, used


@part
def _read_reading(
    data: np.ndarray,
    at: int,
    end: int,
    timestamp_ms: int,
    names: np.ndarray,
    name_ends: np.ndarray,
    row: int,
    time_ms: np.ndarray,
    values: np.ndarray,
    unsure: np.ndarray,
    doubts: int,
    ids: np.ndarray,
    used: int,
) -> tuple[int, int, int]:
    """One object into a row: where it ends, -1 where it is not ordinary; unsure numbers; bytes of ids."""
    found = 0  # a bit for each field
    time_ms[row] = timestamp_ms
    if at >= end or data[at] != _OPEN:
        return -1, doubts, used
    separator = _OPEN
    while separator != _CLOSE:
        start = _blank(data, at + 1, end)
        at = _string(data, start, end)
        if at < 0:
            return -1, doubts, used
        field = _field(data, start + 1, at - 1, names, name_ends)
        start = at = _content(data, at, end)
        if at < 0 or (field >= 0 and found >> field & 1 == 1):
            return -1, doubts, used
        if field == 0:
            at, used = _read_stream(data, at, end, ids, used)
        elif field == 1:
            at, time_ms[row] = _read_time(data, at, end)
        elif field >= 2:
            at, values[row, field - 2], sure = _read_value(data, at, end)
            if not sure:
                unsure[doubts, 0], unsure[doubts, 1], unsure[doubts, 2] = row * values.shape[1] + field - 2, start, at
                doubts += 1
        else:
            at = _skip(data, at, end)
        if at < 0:
            return -1, doubts, used
        if field >= 0:
            found |= 1 << field
        at = _blank(data, at, end)
        if at >= end or (data[at] != _COMMA and data[at] != _CLOSE):
            return -1, doubts, used
        separator = data[at]
    wanted = (1 << len(name_ends)) - 1
    if found | 2 != wanted or (found & 2 == 0 and timestamp_ms == -1):
        return -1, doubts, used
    if not FIRST_TIME_MS <= time_ms[row] <= LAST_TIME_MS:
        return -1, doubts, used
    return at + 1, doubts, used


@part
def _content(data: np.ndarray, at: int, end: int) -> int:
    """Where a field's content begins behind its name and colon; -1 where there is none."""
    at = _blank(data, at, end)
    if at >= end or data[at] != _COLON:
        return -1
    at = _blank(data, at + 1, end)
    return at if at < end else -1


@part
def _read_stream(data: np.ndarray, at: int, end: int, ids: np.ndarray, used: int) -> tuple[int, int]:
    """A stream id into the ids: where it ends, -1 where it is not ordinary; bytes of ids."""
    start = at + 1
    at = _string(data, at, end)
    if at < 0 or not _names_a_stream(data, start, at - 1):
        return -1, used
    for j in range(start, at - 1):
        ids[used] = data[j]
        used += 1
    ids[used] = _NEWLINE
    return at, used + 1


@part
def _read_time(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """A time, as text or as a number: where it ends, -1 where it is not ordinary; its milliseconds."""
    if data[at] == _QUOTE:
        return _time(data, at + 1, end)
    at, number, sure, _ = _number(data, at, end)
    if not sure:
        return -1, 0
    return at, np.int64(np.rint(number * 1000 if abs(number) < FIRST_MS else min(number, 1e18)))  # type: ignore[return-value]


@part
def _read_value(data: np.ndarray, at: int, end: int) -> tuple[int, float, bool]:
    """A value of a channel: where it ends, -1 where it is not ordinary; its float64, and whether that is sure."""
    if data[at] == _NULL[0]:
        return _after(data[:end], at, _NULL), math.nan, True
    at, number, sure, before = _number(data, at, end)
    return at if before <= _MAX_DIGITS_BEFORE else -1, number, sure


@part
def _blank(data: np.ndarray, at: int, end: int) -> int:
    """Where blanks end."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@part
def _string(data: np.ndarray, at: int, end: int) -> int:
    """Where a string without escapes and control characters of ASCII ends, behind its quote; -1 where there is none."""
    if at >= end or data[at] != _QUOTE:
        return -1
    at += 1
    while at < end and data[at] >= 32 and data[at] != _DELETE and data[at] != _BACKSLASH:
        if data[at] == _QUOTE:
            return at + 1
        at += 1
    return -1


@part
def _field(data: np.ndarray, start: int, end: int, names: np.ndarray, name_ends: np.ndarray) -> int:
    """Which of the fields a name is; -1 is none."""
    first = 0
    for field in range(len(name_ends)):
        last = name_ends[field]
        if last - first == end - start:
            same = True
            for j in range(end - start):
                same &= data[start + j] == names[first + j]
            if same:
                return field
        first = last
    return -1


@part
def _names_a_stream(data: np.ndarray, start: int, end: int) -> bool:
    """Whether a string without escapes and control characters of ASCII may name a stream."""
    for j in range(start, end - 1):
        if data[j] == _FIRST_CONTROL[0] and data[j + 1] < _FIRST_CONTROL[1]:  # U+0080 to U+009F
            return False
    # Bytes are at least as many as characters.
    return 0 < end - start <= MAX_ID_CHARACTERS and _after(data[:end], start, _RESERVED) < 0


@part
def _skip(data: np.ndarray, at: int, end: int) -> int:
    """Where the value of a field ends that nothing is read from, if it is flat; -1 where it is not ordinary."""
    if data[at] == _QUOTE:
        return _string(data, at, end)
    for word in (_NULL, _TRUE, _FALSE):
        if data[at] == word[0]:
            return _after(data[:end], at, word)
    return _number(data, at, end)[0]


@part
def _number(data: np.ndarray, at: int, end: int) -> tuple[int, float, bool, int]:
    """A JSON number: where it ends, -1 where there is none; its float64, and whether that is sure; most digits before its point.

    The digits are an exact integer and the power of ten is exact, so one operation rounds it (Clinger 1990).
    """
    negative = data[at] == _MINUS
    if negative:
        at += 1
    first, digits, power, before, mantissa = at, 0, 0, 0, 0
    while at < end and 48 <= data[at] <= 57:
        mantissa = mantissa * 10 + (data[at] - _ZERO) if digits < 18 else mantissa
        digits += 1 if mantissa > 0 else 0
        at += 1
    if at == first or (data[first] == _ZERO and at > first + 1):
        return -1, 0.0, False, 0
    before = digits
    if at < end and data[at] == _DOT:
        at += 1
        first = at
        while at < end and 48 <= data[at] <= 57:
            mantissa = mantissa * 10 + (data[at] - _ZERO) if digits < 18 else mantissa
            digits += 1 if mantissa > 0 else 0
            at += 1
        if at == first:
            return -1, 0.0, False, 0
        power = first - at
    if at < end and (data[at] == 69 or data[at] == 101):  # E, e
        at += 1
        sinks = at < end and data[at] == _MINUS
        if at < end and (sinks or data[at] == 43):  # +
            at += 1
        first, exponent = at, 0
        while at < end and 48 <= data[at] <= 57 and at - first < 4:
            exponent = exponent * 10 + (data[at] - _ZERO)
            at += 1
        if at == first or (at < end and 48 <= data[at] <= 57):
            return -1, 0.0, False, 0
        power += -exponent if sinks else exponent
        before += -exponent if sinks else exponent
    if mantissa == 0 and negative:
        return -1, 0.0, False, 0  # -0: whether it has a sign is the parser's affair
    number = float(mantissa)
    sure = digits < 18 and mantissa <= _EXACT and -22 <= power <= 22
    if sure:
        number = number * _TENS[power] if power >= 0 else number / _TENS[-power]
    return at, -number if negative else number, sure, before


@part
def _time(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """RFC 3339 in UTC such as 2026-11-24T10:00:00Z, with up to six digits of a second: where its string ends; its milliseconds.

    -1 where it is not that. To the nearest millisecond, half of one upwards.
    """
    if at + 21 > end:
        return -1, 0
    year, month, day = _fixed(data, at, 4), _fixed(data, at + 5, 2), _fixed(data, at + 8, 2)
    hour, minute, second = _fixed(data, at + 11, 2), _fixed(data, at + 14, 2), _fixed(data, at + 17, 2)
    signs = data[at + 4] == _MINUS and data[at + 7] == _MINUS and data[at + 10] == _T
    signs &= data[at + 13] == _COLON and data[at + 16] == _COLON
    if not signs or year < 1 or not 1 <= month <= 12 or day < 1 or not 0 <= hour <= 23:
        return -1, 0
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _MONTH_DAYS[month] + (1 if leap and month == 2 else 0) or not (0 <= minute <= 59 and 0 <= second <= 59):
        return -1, 0
    at += 19
    microseconds = 0
    if data[at] == _DOT:
        at += 1
        first, unit = at, 100_000
        while at < end and 48 <= data[at] <= 57 and unit > 0:
            microseconds += (data[at] - _ZERO) * unit
            at, unit = at + 1, unit // 10
        if at == first:
            return -1, 0
    if at + 2 > end or data[at] != _Z or data[at + 1] != _QUOTE:
        return -1, 0
    # Days since 1970 (Howard Hinnant's `days_from_civil`): years begin in March, so that a leap day comes last.
    marches = year - (1 if month <= 2 else 0)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = 365 * marches + marches // 4 - marches // 100 + marches // 400 + of_year - 719_468
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second
    return at + 2, seconds * 1000 + (microseconds + 500) // 1000


@part
def _fixed(data: np.ndarray, at: int, digits: int) -> int:
    """A number of so many digits; far below zero where they are not all digits."""
    number = np.int64(0)
    for j in range(at, at + digits):
        digit = np.int64(data[j]) - _ZERO
        number = number * 10 + digit if 0 <= digit <= 9 else np.int64(-1_000_000_000)
    return number  # type: ignore[return-value]
