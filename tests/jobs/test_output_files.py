"""Writing a job's results: every format read back equal, no half file, bounded row groups."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fanout.core.errors import RequestError
from fanout.jobs import output_formats
from fanout.jobs.output_files import check_writable, choose_format, make_encoder, open_output
from fanout.jobs.output_formats import RecordEncoder
from fanout.jobs.result_records import COLUMNS

INT64 = 2**63
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NESTED = st.lists(TEXT, max_size=2) | st.dictionaries(TEXT, st.integers() | TEXT, max_size=2)
KINDS: Mapping[str, st.SearchStrategy[Any]] = {
    "text": TEXT | NESTED,
    "whole": st.integers(-INT64, INT64 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "time": st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
}
RECORDS = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | KINDS[kind] for name, kind in COLUMNS.items()}), max_size=4
)
FORMATS = ("jsonl", "csv", "parquet")


def encode(kind: str, *parts: Sequence[Mapping[str, Any]]) -> bytes:
    made = make_encoder(kind)
    return b"".join([*(made.encode(part) for part in parts), made.close()])


class Writer:
    """An open output and the encoder of its format."""

    def __init__(self, write: Callable[[bytes], object], encoder: RecordEncoder) -> None:
        self._write, self._encoder = write, encoder

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._write(self._encoder.encode(records))

    def close(self) -> None:
        self._write(self._encoder.close())


@contextmanager
def open_writer(target: Path | BinaryIO, kind: str | None = None) -> Iterator[Writer]:
    encoder = make_encoder(choose_format(str(target) if isinstance(target, Path) else "-", kind))
    with open_output(target) as write:
        writer = Writer(write, encoder)
        yield writer
        writer.close()


def to_ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def parse_time(time: str) -> int:
    """Return the milliseconds of a time of RFC 3339."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# Round trips


@given(RECORDS, RECORDS)
def test_jsonl_has_every_column_on_every_line(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    lines = [json.loads(line) for line in encode("jsonl", one, other).split(b"\n")[:-1]]
    assert len(lines) == len(one + other)
    for line, record in zip(lines, one + other, strict=True):
        assert list(line) == list(COLUMNS)
        ended = line.pop("ended")
        assert (ended and parse_time(ended)) == to_ms(record.get("ended"))
        assert line == {name: record.get(name) for name in COLUMNS if name != "ended"}


@given(RECORDS, RECORDS)
def test_csv_can_be_read_by_any_reader(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    text = encode("csv", one, other).decode()
    lines = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert text.split("\r\n")[0] == ",".join(COLUMNS)
    assert len(lines) == len(one + other)
    for line, record in zip(lines, one + other, strict=True):
        for name, kind in COLUMNS.items():
            value = record.get(name)
            if value is None:
                assert line[name] == ""
            elif kind == "text":
                assert line[name] == to_text(value)
            elif kind == "time":
                assert parse_time(line[name]) == to_ms(value)
            else:
                assert float(line[name]) == float(value)


@settings(max_examples=30)
@given(RECORDS, RECORDS)
def test_parquet_is_read_back_equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    lines = parquet.read_table(io.BytesIO(encode("parquet", one, other))).to_pylist()
    assert len(lines) == len(one + other)
    for line, record in zip(lines, one + other, strict=True):
        assert list(line) == list(COLUMNS)
        for name, kind in COLUMNS.items():
            value = record.get(name)
            if kind == "time" and value is not None:
                assert to_ms(line[name].timestamp()) == to_ms(value)
            else:
                assert line[name] == (to_text(value) if kind == "text" else value)


def test_the_columns_of_parquet_have_the_same_types_whatever_is_in_them() -> None:
    """Also where a column holds nothing: files of several jobs can be read as one."""
    empty = parquet.read_schema(io.BytesIO(encode("parquet")))
    full = parquet.read_schema(io.BytesIO(encode("parquet", [{"item": 1, "cost_usd": 1, "text": "x", "ended": 0}])))
    assert empty == full
    assert {name: str(empty.field(name).type) for name in ("item", "text", "cost_usd", "ended", "values")} == {
        "item": "int64",
        "text": "string",
        "cost_usd": "double",
        "ended": "timestamp[ms, tz=UTC]",
        "values": "string",
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_text_of_upstreams_is_repaired(kind: str) -> None:
    """Half a character and numbers that are none."""
    record = {"text": "a\ud83d", "tool_calls": [{"x": "\ud83d"}], "cost_usd": float("nan"), "values": {"y": float("inf")}}
    written = encode(kind, [record])
    line: Mapping[str, Any]
    if kind == "jsonl":
        line = json.loads(written)
        assert (line["tool_calls"], line["values"]) == ([{"x": "\ufffd"}], {"y": None})
    else:
        parsed = parquet.read_table(io.BytesIO(written)).to_pylist() if kind == "parquet" else None
        (line,) = parsed or csv.DictReader(io.StringIO(written.decode()))
        assert (line["tool_calls"], line["values"]) == ('[{"x":"\ufffd"}]', '{"y":null}')
    assert line["text"] == "a\ufffd"
    assert line["cost_usd"] == ("" if kind == "csv" else None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_misspelt_column_raises(kind: str) -> None:
    with pytest.raises(KeyError, match="no columns: cost, txt"):
        make_encoder(kind).encode([{"txt": "a", "cost": 1}])


def test_text_that_looks_like_a_formula_is_written_as_it_is() -> None:
    assert "=1+1" in encode("csv", [{"text": "=1+1"}]).decode()


# In pieces


def test_text_is_written_at_once_and_parquet_by_row_groups() -> None:
    """So a download begins with the first page of results, and what waits has a bound."""
    assert make_encoder("jsonl").encode([{"item": 1}]).endswith(b"\n")
    assert make_encoder("csv").encode([{"item": 1}]).endswith(b"\n")
    made, pieces, records = make_encoder("parquet"), [], 0
    big = [{"item": number, "text": os.urandom(2048).hex()} for number in range(256)]
    for _ in range(2 * output_formats.ROW_GROUP_BYTES // (256 * 4096) + 2):
        pieces.append(made.encode(big))
        records += len(big)
    pieces.append(made.close())
    assert sum(len(piece) > 1000 for piece in pieces) >= 3
    file = parquet.ParquetFile(io.BytesIO(b"".join(pieces)))
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    assert sum(group.num_rows for group in groups) == records
    assert len(groups) >= 3
    assert max(group.total_byte_size for group in groups) < 2 * output_formats.ROW_GROUP_BYTES


# Files


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_takes_its_name_only_when_it_is_complete(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"results.{kind}"
    path.write_text("earlier")
    with open_writer(path) as writer:
        writer.write([{"item": 1}])
        writer.write([{"item": 2}])
        assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes()[:4] == {"jsonl": b'{"it', "csv": b"item", "parquet": b"PAR1"}[kind]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failure_leaves_no_partial_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(ZeroDivisionError), open_writer(path) as writer:  # noqa: PT012 - it has to fail after something is written
        writer.write([{"item": 1}])
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NO /dev/full: a disk that is full cannot be tried")
@pytest.mark.parametrize("records", [1, 10_000])
def test_a_full_disk_is_reported(records: int) -> None:
    """While writing, or only at the end."""
    written = [{"item": number} for number in range(records)]
    with pytest.raises(RequestError, match="cannot be written: No space left"), open_writer(Path("/dev/full"), "csv") as writer:
        writer.write(written)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.touch()
    link.symlink_to(real)
    with open_writer(link) as writer:
        writer.write([{"item": 1}])
    assert link.is_symlink()
    assert json.loads(real.read_text())["item"] == 1


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe.jsonl", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with open_writer(pipe) as writer:
        writer.write([{"item": 1}])
    reader.join()
    assert json.loads(read[0])["item"] == 1
    assert pipe.is_fifo()


def test_a_stream_of_the_caller_stays_open() -> None:
    stream = io.BytesIO()
    with open_writer(stream, "parquet") as writer:
        writer.write([{"item": 1, "ended": 0.5}])
    (line,) = parquet.read_table(io.BytesIO(stream.getvalue())).to_pylist()
    assert (line["item"], line["ended"]) == (1, datetime.fromtimestamp(0.5, UTC))


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("a.txt", None, "output: `.*a.txt` has no known ending: .jsonl, .ndjson, .csv, .parquet; or name the format"),
        ("a.csv", "xlsx", "format: `xlsx` is not allowed: jsonl, csv, parquet"),
        ("none/a.csv", None, "output: `.*none/a.csv` cannot be written: there is no folder `.*none`"),
        (".", "csv", "output: `.*` cannot be written: it is a folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_named(name: str, kind: str | None, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=sentence), open_writer(tmp_path / name, kind):
        pass


def test_standard_output_is_jsonl_unless_a_format_is_requested() -> None:
    assert (choose_format("-"), choose_format("-", "CSV"), choose_format("a.NDJSON")) == ("jsonl", "csv", "jsonl")


# Formulas


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1"])
def test_formulas_are_quoted_where_that_is_wanted(text: str) -> None:
    encoder = make_encoder("csv", quote_formulas=True)
    written = encoder.encode([{"text": text, "cost_usd": -1.5, "values": {"a": "=1"}}]).decode()
    (line,) = csv.DictReader(io.StringIO(written, newline=""))
    assert (line["text"], line["cost_usd"], line["values"]) == (f"'{text}", "-1.5", '{"a":"=1"}')


def test_only_csv_has_formulas_to_quote() -> None:
    with pytest.raises(RequestError, match="quote_formulas: is for `csv`: parquet has no formulas"):
        make_encoder("parquet", quote_formulas=True)


# Absurd figures


@pytest.mark.parametrize("kind", FORMATS)
def test_no_value_fails_an_export(kind: str) -> None:
    absurd: dict[str, Any] = {"prompt_tokens": 2**70, "total_ms": -(2**64), "queued_ms": 1.5, "attempts": True}
    absurd |= {"cost_usd": 10**400, "ended": 1e18}
    written = encode(kind, [absurd, {"item": 1, "cost_usd": 2}])
    lines: Sequence[Mapping[str, Any]]
    if kind == "jsonl":
        lines = [json.loads(line) for line in written.splitlines()]
    elif kind == "csv":
        lines = list(csv.DictReader(io.StringIO(written.decode(), newline="")))
    else:
        lines = parquet.read_table(io.BytesIO(written)).to_pylist()
    assert {lines[0][name] for name in absurd} == {"" if kind == "csv" else None}
    assert float(lines[1]["cost_usd"]) == 2


# Links and files of others


def share(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def own(path: Path, user: int = 65_534) -> Path:
    os.chown(path, user, user, follow_symlinks=False)
    return path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: no file can be given to another user")


@needs_root
def test_a_strangers_link_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    """Whatever the kernel is set to, and also if the link leads through one of our own."""
    victim = tmp_path / "victim.jsonl"
    victim.write_text("precious")
    link = share(tmp_path / "shared") / "results.jsonl"
    link.symlink_to(victim)
    own(link)
    ours = tmp_path / "ours.jsonl"
    ours.symlink_to(link)
    for path in (link, ours):
        with pytest.raises(RequestError, match="written: it belongs to somebody else, in a folder that all may write to"):
            check_writable(path)
        with pytest.raises(RequestError, match="belongs to somebody else"), open_writer(path):
            pass
    assert victim.read_text() == "precious"


@needs_root
def test_a_strangers_pipe_and_file_in_a_shared_folder_are_not_written(tmp_path: Path) -> None:
    folder = share(tmp_path / "shared")
    os.mkfifo(folder / "pipe.csv")
    (folder / "file.csv").touch()
    for name in ("pipe.csv", "file.csv"):
        with pytest.raises(RequestError, match="belongs to somebody else"), open_writer(own(folder / name)):
            pass


@needs_root
def test_our_own_link_in_a_shared_folder_is_followed(tmp_path: Path) -> None:
    link = share(tmp_path / "shared") / "results.jsonl"
    link.symlink_to(tmp_path / "new.jsonl")
    with open_writer(link) as writer:
        writer.write([{"item": 1}])
    assert link.is_symlink()
    assert (tmp_path / "new.jsonl").exists()


def test_links_that_lead_in_a_circle_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(RequestError, match="Too many levels of symbolic links"):
        check_writable(tmp_path / "a.csv")


def test_results_that_only_their_owner_may_read_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.touch(mode=0o600)
    with open_writer(path) as writer:
        writer.write([{"item": 1}])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_tried_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "results.csv")
    assert list(tmp_path.iterdir()) == []


def test_standard_output_can_be_named_by_its_device() -> None:
    program = """
from pathlib import Path
from fanout.jobs.output_files import open_output
with open_output(Path("/dev/stdout")) as write:
    write(b"x")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"x"
