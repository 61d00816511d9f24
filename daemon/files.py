"""Files of data: written whole or not at all, read by lines; compressed (zstd) where the name ends in `.zst`.

This room knows bytes, newlines and compression. What a line says is for `daemon.recording` and `daemon.csv_log` to know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import zstandard

from daemon.errors import OperatorError, RecordingError

#: Read together, bytes.
CHUNK_BYTES = 4 << 20
#: Data is compressed in frames of about this size, each with its checksum; a frame is given out when that was right ...
_FRAME_BYTES = 1 << 20
#: ... unless it is larger than this, as another program may write it.
_HELD_BYTES = 8 << 20
_PIECE_BYTES = 1 << 16
_ZSTD_LEVEL = 3


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A new file to write, compressed where the name ends in `.zst`; it takes its name when the block ends without an error.

    Raises:
        OperatorError: The file cannot be made.
    """
    with replaced(path) as raw, _packed(raw, path) as file:
        yield file
        file.flush()


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """`written`, of bytes that go into the file as they are."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _created(part, path) as raw:
            yield raw
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


@contextmanager
def written_at_once(part: Path, path: Path) -> Iterator[IO[bytes]]:
    """A new file to write that has its name at once and keeps it however the block ends, compressed as `path` would be.

    Raises:
        OperatorError: The file cannot be made; the message names `path`.
    """
    with _created(part, path) as raw, _packed(raw, path) as file:
        yield file


def packed(data: bytes, path: Path) -> bytes:
    """Data as it stands in a file of this name: whatever else is packed so can follow it there."""
    return _compressor().compress(data) if data and path.suffix == ".zst" else data


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, without their newline, each with its number from 1.

    Raises:
        OperatorError: The file cannot be opened.
        RecordingError: Compressed data is damaged or cut; after the whole lines before that were given.
    """
    number = 0
    for text in texts(path):
        for line in text[:-1].split(b"\n"):
            number += 1
            if line and not line.isspace():
                yield number, line


def texts(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines: each ends with a newline, which the last one is given where it has none.

    Raises:
        OperatorError: The file cannot be opened.
        RecordingError: Compressed data is damaged or cut; after the whole lines before that were given.
    """
    number = 0
    rest: list[bytes] = []  # joined once: a long line would else be copied with each of its pieces
    try:
        for piece in _pieces(path):
            end = piece.rfind(b"\n") + 1
            if end:
                text = b"".join([*rest, piece[:end]])
                number += text.count(b"\n")
                yield text
                rest.clear()
            if end < len(piece):
                rest.append(piece[end:])
    except zstandard.ZstdError as error:
        raise RecordingError(path, number + 1, f"the compressed data is damaged ({error})") from None
    if rest:
        yield b"".join([*rest, b"\n"])


def _pieces(path: Path) -> Iterator[bytes]:
    """What the file holds, cut anywhere."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}): check the name.") from None
    with raw:
        if path.suffix == ".zst":
            yield from _unpacked(iter(lambda: raw.read(_PIECE_BYTES), b""))
        else:
            yield from iter(lambda: raw.read(CHUNK_BYTES), b"")


def _unpacked(read: Iterator[bytes]) -> Iterator[bytes]:
    """Decompressed data of one frame after another; a missing end is an error, which the library's own reader passes over.

    So is a file without any frame: what is written has one even where it is empty.
    """
    frame, held = None, b""
    for packed in read:
        while packed:
            if frame is None or frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            held += frame.decompress(packed)
            packed = frame.unused_data
            if frame.eof or len(held) > _HELD_BYTES:
                yield held
                held = b""
    if frame is None or not frame.eof:
        yield held
        raise zstandard.ZstdError("it ends too early")


@contextmanager
def _created(part: Path, path: Path) -> Iterator[IO[bytes]]:
    """A new file that is on the disk when the block ends well; where it cannot be made, the message names `path`."""
    try:
        raw = part.open("wb")
    except OSError as error:
        raise OperatorError(f"{path} cannot be written ({error.strerror}): check the folder.") from None
    with raw:
        yield raw
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def _packed(raw: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """What is written goes into `raw`, compressed where the name ends in `.zst`."""
    if path.suffix == ".zst":
        with _compressor().stream_writer(raw, closefd=False) as stream:
            yield _Frames(stream)  # type: ignore[misc]
    else:
        yield raw


class _Frames:
    """Ends a frame of compressed data whenever it is long enough."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._bytes += len(data)
        if self._bytes > _FRAME_BYTES:
            self.flush()

    def flush(self) -> None:
        """End the frame: a reader can be sure of all that was written."""
        if self._bytes:
            self._stream.flush(zstandard.FLUSH_FRAME)
            self._bytes = 0


def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(_ZSTD_LEVEL, write_checksum=True)
