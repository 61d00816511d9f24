"""Files: whole or not at all, read by lines, and damage of compressed data named by the line behind the last one given."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import zstandard

from daemon import files
from daemon.errors import OperatorError, RecordingError
from daemon.files import lines, packed, texts, written


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.zst"])
def test_lines_are_numbered_and_blank_ones_passed_over(tmp_path: Path, name: str) -> None:
    """Numbers count blank lines too; a missing last newline does not matter."""
    (tmp_path / name).write_bytes(packed(b"a\n\n \nb\n", tmp_path / name) + packed(b"c", tmp_path / name))
    assert list(lines(tmp_path / name)) == [(1, b"a"), (4, b"b"), (5, b"c")]
    assert b"".join(texts(tmp_path / name)) == b"a\n\n \nb\nc\n"


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    """While it is written there is no file of that name, and after a failure none at all."""
    with pytest.raises(KeyError), written(tmp_path / "log") as file:  # noqa: PT012 - the first line must work
        file.write(b"a")
        assert not (tmp_path / "log").exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A folder that does not exist is the operator's to mend."""
    with (
        pytest.raises(OperatorError, match=r"no/log\.jsonl cannot be written \(No such file or directory\)"),
        written(tmp_path / "no/log.jsonl"),
    ):
        pass


def test_absent_file_is_named() -> None:
    """A file that is not there is the operator's to mend."""
    with pytest.raises(OperatorError, match=r"absent\.jsonl cannot be read \(No such file or directory\)"):
        next(lines(Path("absent.jsonl")))


def test_cut_zstd_gives_what_it_holds(tmp_path: Path) -> None:
    """Compressed data that ends too early is an error even at the end of a line, after the whole lines were given."""
    path = tmp_path / "log.zst"
    pack = zstandard.ZstdCompressor().compressobj()
    path.write_bytes(pack.compress(b"a\n\nb\n") + pack.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    given = lines(path)
    assert list(islice(given, 2)) == [(1, b"a"), (3, b"b")]
    with pytest.raises(RecordingError, match=r"line 4: the compressed data is damaged \(it ends too early") as caught:
        next(given)
    assert caught.value.line == 4


def test_damaged_zstd_is_named(tmp_path: Path) -> None:
    """Bytes that are no zstd at all are named, not crashed on."""
    (tmp_path / "log.zst").write_bytes(b"plain text")
    with pytest.raises(RecordingError, match="line 1: the compressed data is damaged"):
        list(lines(tmp_path / "log.zst"))


def test_an_empty_file_is_no_zstd(tmp_path: Path) -> None:
    """What was cut to nothing is damaged; what is empty was written as a frame."""
    path = tmp_path / "log.zst"
    path.touch()
    with pytest.raises(RecordingError, match=r"line 1: the compressed data is damaged \(it ends too early"):
        list(lines(path))
    with written(path):
        pass
    assert list(lines(path)) == []


def test_a_line_of_many_pieces_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was copied with each of its pieces would take the square of its length."""

    class Piece(bytes):
        def __radd__(self, _before: bytes) -> bytes:
            raise AssertionError("copied")

    monkeypatch.setattr(files, "_pieces", lambda _path: iter([b"a\nb", *[Piece(b"x" * 7)] * 500, b"\n\nlast"]))
    assert list(lines(Path("log"))) == [(1, b"a"), (2, b"b" + b"x" * 3500), (4, b"last")]


def test_a_message_ends_with_one_mark() -> None:
    """A question stays one."""
    assert str(RecordingError(Path("log"), 3, "was it cut?")) == "log, line 3: was it cut?"
    assert str(RecordingError(Path("log"), 3, "no")) == "log, line 3: no."
