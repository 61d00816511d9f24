"""Numbers to six significant digits, exactly, and forecasts as JSON text, compiled: each has seventy numbers.

Nothing of ours is imported but the compiler: the machine code is made anew when this file changes.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from models.compiled import compiled, part


def _decades() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tables by binade (the 2048 exponents of a float64): the power of ten inside it, and the factors below and from it on.

    No binade holds two powers of ten. `up` and `down` bring a magnitude to 1e5 <= x <= 1e6; one of the two is 1, the other an
    exact power of ten. NaN says that there is none. `point` is how many digits stand before the decimal point.
    """
    start = np.full(2048, np.inf)
    up, down, point = np.full(4096, np.nan), np.full(4096, np.nan), np.zeros(4096, np.int64)
    for binade in range(1, 2047):
        decade = Decimal(2.0 ** (binade - 1023)).adjusted()
        start[binade] = float(f"1e{decade + 1}") if decade < 308 else np.inf
        for entry, shift in ((2 * binade, 5 - decade), (2 * binade + 1, 4 - decade)):
            point[entry] = 6 - shift
            if abs(shift) <= 22:
                up[entry], down[entry] = 10.0 ** max(shift, 0), 10.0 ** max(-shift, 0)
    # Binade 0 holds zero, which is its own six digits, and the denormal numbers, which are not.
    start[0], up[0], down[0] = 5e-324, 1.0, 1.0
    return start, up, down, point


_DECADE_START, _UP, _DOWN, _POINT = _decades()


@compiled
def six_digits_or_unsure(numbers: np.ndarray, rounded: np.ndarray, unsure: np.ndarray) -> bool:
    """The float64 nearest to each number's decimal of six significant digits; -0 becomes 0.

    The digits before the point are brought to six by one exactly rounded product or quotient with an exact power of ten,
    rounded, and brought back the same way. Where that cannot be trusted (a tie to within the product's error, magnitudes that
    need a power of ten beyond 1e22, what is not finite) the result is NaN and marked.

    Args:
        numbers: float64 (N,), contiguous.
        rounded: float64 (N,), filled.
        unsure: bool (N,), filled.

    Returns:
        Whether any is unsure.
    """
    binades = numbers.view(np.int64)
    some = False
    for i in range(len(numbers)):
        magnitude = abs(numbers[i])
        binade = binades[i] >> 52 & 2047
        entry = 2 * binade + (1 if magnitude >= _DECADE_START[binade] else 0)
        scaled = magnitude * _UP[entry] / _DOWN[entry]
        whole = np.rint(scaled)
        sure = abs(scaled - whole) < 0.5 - 1e-9  # the product is at most 6e-11 off; NaN compares false
        unsure[i] = not sure
        some |= not sure
        rounded[i] = np.copysign(whole / _UP[entry] * _DOWN[entry], numbers[i]) + 0.0 if sure else np.nan  # -0.0 + 0.0 is 0.0
    return some


#: Bytes that a number takes at most, with a comma: sign, sixteen digits, point and zero; the longest unfinished one.
NUMBER_BYTES = 24
#: Bytes of a row's time, interval and flag, and of the quotes around its id, at most.
ROW_BYTES = 64
#: Digits before the point of what orjson writes without an exponent: 1e-5 and more, less than 1e16.
_LEAST_POINT, _MOST_POINT = -4, 16

_DAY_MS = 86_400_000
_ZERO, _DOT, _COMMA, _MINUS, _QUOTE, _BACKSLASH, _NEWLINE = (ord(sign) for sign in '0.,-"\\\n')
_NULL, _TRUE, _FALSE, _TIME_SIGNS = (np.array(list(word), np.uint8) for word in (b"null", b"true", b"false", b"T::."))
# Eight characters in a word, the first one lowest.
_THREE_DIGITS = np.array([int.from_bytes(b"%03d" % number, "little") for number in range(1000)], np.uint64)
_THOUSAND, _THREE_BYTES, _SPARE_ZEROS = np.uint64(1000), np.uint64(24), np.uint64(0x3030 << 48)
_BITS = np.array([8 * count for count in range(8)], np.uint64)  # of so many characters
_ONES = np.array([(1 << 8 * count) - 1 for count in range(8)], np.uint64)
_DOTS = np.array([_DOT << 8 * place for place in range(8)], np.uint64)
_END_ZEROS = np.array([3 - len(f"{number:03}".rstrip("0")) for number in range(1000)])


@compiled
def write_forecasts(
    form: np.ndarray,
    cuts: np.ndarray,
    ids: np.ndarray,
    time_ms: np.ndarray,
    interval_ms: np.ndarray,
    quantiles: np.ndarray,
    scores: np.ndarray,
    warming: np.ndarray,
    text: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Write one JSON object a row: the pieces of a form with the row's own values between them.

    Numbers are those of `six_digits_or_unsure` in orjson's spelling; null where they are not finite. A row with a number that
    this cannot write (a tie, or a magnitude that takes an exponent) stays empty.

    Args:
        form: uint8, the pieces of the form, one after the other.
        cuts: int64 (T Q + 6,), where each piece ends: those before id, time, interval, the numbers of each target and level,
            score, flag; and the last one.
        ids: uint8, the stream ids, UTF-8 without control characters, each with a newline behind it.
        time_ms: int64 (B,), in the years 1 to 9999.
        interval_ms: int64 (B,); null where 0.
        quantiles: float64 (B, T, K, Q), contiguous; written target by target and level by level.
        scores: float64 (B,).
        warming: bool (B,).
        text: uint8, filled from its start; for each row as long as the form, twice its id, `ROW_BYTES`, and `NUMBER_BYTES`
            for each of its numbers.
        ends: int64 (B,), filled: where the text of each row ends, and that of the next one begins.
    """
    targets, _, levels = quantiles.shape[1:]
    bits, score_bits = quantiles.view(np.int64), scores.view(np.int64)
    at, id_end = 0, -1
    for i in range(len(ends)):
        start = at
        at = _copy(form, 0, cuts[0], text, at)
        at, id_end = _write_id(ids, id_end + 1, text, at)
        at = _copy(form, cuts[0], cuts[1], text, at)
        at = _write_time(time_ms[i], text, at)
        at = _copy(form, cuts[1], cuts[2], text, at)
        at = _write_integer(interval_ms[i], text, at) if interval_ms[i] != 0 else _copy(_NULL, 0, 4, text, at)
        piece = 3
        sure = True
        for t in range(targets):
            for q in range(levels):
                at = _copy(form, cuts[piece - 1], cuts[piece], text, at)
                piece += 1
                at, written = _write_fan(quantiles, bits, i, t, q, text, at)
                sure &= written
        at = _copy(form, cuts[piece - 1], cuts[piece], text, at)
        at, written = _write_number(scores[i], score_bits[i], text, at)
        at = _copy(form, cuts[piece], cuts[piece + 1], text, at)
        at = _copy(_TRUE, 0, 4, text, at) if warming[i] else _copy(_FALSE, 0, 5, text, at)
        at = _copy(form, cuts[piece + 1], cuts[piece + 2], text, at)
        if not (sure and written):
            at = start
        ends[i] = at


@part
def _copy(source: np.ndarray, start: int, end: int, text: np.ndarray, at: int) -> int:
    """Copy bytes; where they end."""
    for j in range(end - start):
        text[at + j] = source[start + j]
    return at + end - start


@part
def _write_id(ids: np.ndarray, j: int, text: np.ndarray, at: int) -> tuple[int, int]:
    """A stream id in quotes: where it ends, and where its newline is."""
    text[at] = _QUOTE
    at += 1
    while ids[j] != _NEWLINE:
        if ids[j] == _QUOTE or ids[j] == _BACKSLASH:
            text[at] = _BACKSLASH
            at += 1
        text[at] = ids[j]
        at, j = at + 1, j + 1
    text[at] = _QUOTE
    return at + 1, j


@part
def _write_digits(number: int, digits: int, text: np.ndarray, at: int) -> int:
    """A natural number with zeros before it."""
    for j in range(at + digits - 1, at - 1, -1):
        text[j] = _ZERO + number % 10
        number //= 10
    return at + digits


@part
def _write_integer(number: int, text: np.ndarray, at: int) -> int:
    """A whole number."""
    if number < 0:
        text[at] = _MINUS
        at, number = at + 1, -number
    digits, rest = 1, number // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    return _write_digits(number, digits, text, at)


@part
def _write_time(time_ms: int, text: np.ndarray, at: int) -> int:
    """RFC 3339 in UTC with milliseconds, in quotes.

    The date is Howard Hinnant's `civil_from_days`: eras of 400 years, each year from March on, so that a leap day comes last.
    """
    since_march = time_ms // _DAY_MS + 719_468  # days since 0000-03-01
    era, day = since_march // 146_097, since_march % 146_097
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # 0 is March
    text[at] = _QUOTE
    at = _write_digits(400 * era + year + (1 if month >= 10 else 0), 4, text, at + 1)
    text[at] = _MINUS
    at = _write_digits(month + 3 if month < 10 else month - 9, 2, text, at + 1)
    text[at] = _MINUS
    at = _write_digits(day - (153 * month + 2) // 5 + 1, 2, text, at + 1)
    left, unit = time_ms % _DAY_MS, 3_600_000
    for j in range(3):  # hours, minutes, seconds
        text[at] = _TIME_SIGNS[j]
        at = _write_digits(left // unit, 2, text, at + 1)
        left, unit = left % unit, unit // 60
    text[at] = _TIME_SIGNS[3]
    at = _write_digits(left, 3, text, at + 1)
    text[at], text[at + 1] = ord("Z"), _QUOTE
    return at + 2


@part
def _six(number: float, bits: int) -> tuple[int, int]:
    """A finite number's six digits, as one integer, and how many of them stand before the point (0.00123: -2).

    No digits (-1) where they are unsure: as `six_digits_or_unsure`. `bits` are the number's own.
    """
    magnitude = abs(number)
    binade = bits >> 52 & 2047
    entry = 2 * binade + (1 if magnitude >= _DECADE_START[binade] else 0)
    scaled = magnitude * _UP[entry] / _DOWN[entry]
    whole = np.rint(scaled)
    if not abs(scaled - whole) < 0.5 - 1e-9:
        return -1, 0
    if whole == 1_000_000:
        return 100_000, _POINT[entry] + 1
    return np.int64(whole), _POINT[entry]  # type: ignore[return-value]


@part
def _short(number: float, bits: int) -> tuple[np.uint64, int]:
    """The characters of a number's magnitude, and how many they are where they are at most eight of such as 1.23 or 120000.0."""
    digits, point = _six(number, bits)
    if digits <= 0 or point < 1 or point > 6:
        return np.uint64(0), 0
    word, count = _characters(digits)
    after = (word >> _BITS[point]) << _BITS[point + 1]
    return word & _ONES[point] | _DOTS[point] | after, max(count, point + 1) + 1


@part
def _characters(digits: int) -> tuple[np.uint64, int]:
    """The characters of six digits, and how many are left without the zeros at their end."""
    whole = np.uint64(digits)
    high = whole // _THOUSAND
    low = whole - high * _THOUSAND
    word = _SPARE_ZEROS | _THREE_DIGITS[low] << _THREE_BYTES | _THREE_DIGITS[high]
    return word, 6 - _END_ZEROS[low] if low > 0 else 3 - _END_ZEROS[high]


@part
def _put(word: np.uint64, text: np.ndarray, at: int) -> int:
    """Put eight characters; where they begin."""
    room = text[at : at + 8]
    for j in range(8):
        room[j] = word >> np.uint64(8 * j) & np.uint64(255)
    return at


@part
def _write_fan(numbers: np.ndarray, bits: np.ndarray, i: int, t: int, q: int, text: np.ndarray, at: int) -> tuple[int, bool]:
    """A row's numbers of one target and level, with commas between them: where they end, and whether all were written."""
    sure = True
    for k in range(numbers.shape[2]):
        number = numbers[i, t, k, q]
        word, count = _short(number, bits[i, t, k, q])
        if count > 0:  # calls that take arrays would cost as much as the numbers
            if number < 0:
                text[at] = _MINUS
                at += 1
            at = _put(word, text, at) + count
        else:
            at, written = _write_number(number, bits[i, t, k, q], text, at)
            sure &= written
        text[at] = _COMMA
        at += 1
    return at - 1, sure


@part
def _write_number(number: float, bits: int, text: np.ndarray, at: int) -> tuple[int, bool]:
    """A number, or null where it is not finite: where it ends, and whether it was written."""
    if not np.isfinite(number):
        return _copy(_NULL, 0, 4, text, at), True
    digits, point = _six(number, bits)
    if digits == 0:
        point = 1  # as in 1.0
    if digits < 0 or point < _LEAST_POINT or point > _MOST_POINT:
        return at, False
    if number < 0:
        text[at] = _MINUS
        at += 1
    word, count = _characters(digits)
    if point > 0:  # 120000000.0
        end = _put(word, text, at) + point
        for j in range(at + 6, end):
            text[j] = _ZERO
        if point >= count:
            text[end], text[end + 1] = _DOT, _ZERO
            return end + 2, True
        for j in range(at + count, end, -1):
            text[j] = text[j - 1]
        text[end] = _DOT
        return at + count + 1, True
    for j in range(2 - point):  # 0.00123
        text[at + j] = _ZERO
    text[at + 1] = _DOT
    return _put(word, text, at + 2 - point) + count, True
