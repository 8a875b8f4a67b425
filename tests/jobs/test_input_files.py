"""Reading a job's input: every format, every bad line by its number, in memory that does not grow."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.jobs import loading
from fanout.jobs.input_files import choose_format, read_rows
from fanout.jobs.input_formats.parquet import BATCH_ROWS
from fanout.jobs.input_formats.rows import MAX_ROW_BYTES, BadRow, InputRow
from fanout.jobs.loading import LoadingBudget, LoadingStoppedError, load_in_thread
from fanout.jobs.row_parser import RowItem, parse_row
from fanout.jobs.template import PromptTemplate
from tests.support.timing import timed

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAMES = st.lists(
    st.text("abcdefghij _é", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=4, unique=True
)


def parse(content: bytes | str, kind: str = "jsonl") -> list[InputRow | BadRow]:
    raw = content.encode() if isinstance(content, str) else content
    return list(read_rows(io.BytesIO(raw), kind))


def list_good(found: Sequence[InputRow | BadRow]) -> list[tuple[int, Mapping[str, Any]]]:
    return [(row.line, row.values) for row in found if isinstance(row, InputRow)]


def list_bad(found: Sequence[InputRow | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in found if isinstance(row, BadRow)]


def find_reason(content: bytes | str, kind: str = "jsonl") -> str:
    """Return why the only line of `content` cannot be read."""
    ((line, reason),) = list_bad(parse(content, kind))
    assert line == 1
    return reason


# JSONL


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=5), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_jsonl_is_read_back_as_it_was_written(objects: list[dict[str, Any]], end: str, ascii_only: bool) -> None:
    found = parse(end.join(json.dumps(item, ensure_ascii=ascii_only) for item in objects))
    assert [values for _, values in list_good(found)] == objects
    assert list_bad(found) == []


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "csv", "tsv"]))
def test_no_bytes_make_the_reader_raise(content: bytes, kind: str) -> None:
    """Whatever is not a row is a bad row, in the order of the lines."""
    lines = [row.line for row in parse(content, kind)]
    assert lines == sorted(lines)


def test_empty_lines_are_skipped_but_counted() -> None:
    assert list_good(parse('\ufeff\n{"a":1}\r\n\n   \n{"a":2}')) == [(2, {"a": 1}), (5, {"a": 2})]


def test_a_byte_order_mark_is_skipped() -> None:
    assert list_good(parse('\ufeff{"a":1}\n')) == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "is not valid JSON: Expecting ',' delimiter at character 8"),
        (b"[1]", "is not a JSON object: one object on each line is expected"),
        (b'{"a":1,"b":{"c":1,"c":2}}', "has the name `c` twice"),
        (b'{"a":NaN}', "is not valid JSON: `NaN` is not allowed as a number"),
        (b'{"a":-Infinity}', "is not valid JSON: `-Infinity` is not allowed as a number"),
        (b'{"a":1e999}', "holds the number 1e999, which is too large"),
        (b'{"a":"\xff"}', "is not UTF-8 from byte 7 on"),
        (b'{"a":"\\ud83d"}', "holds half of a character: a `\\ud800` to `\\udfff` without its other half"),
        (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "is nested too deeply"),
        (b'{"a":' + b"[" * 50_000, "is nested too deeply"),
        (b'{"a":[' + b"1," * 100_000 + b"1]}", "holds more than 100,000 values"),
        (b'{"a":"' + b"x" * MAX_ROW_BYTES + b'"}', "is longer than 8 MiB"),
    ],
    ids=[
        "cut",
        "list",
        "twice",
        "nan",
        "infinity",
        "1e999",
        "latin-1",
        "surrogate",
        "65 deep",
        "too deep",
        "too many",
        "too long",
    ],
)
def test_a_bad_line_is_reported_among_the_good_ones(line: bytes, reason: str) -> None:
    found = parse(b'{"a":0}\n\n' + line + b'\n{"a":3}')
    assert list_good(found) == [(1, {"a": 0}), (4, {"a": 3})]
    assert list_bad(found) == [(3, reason)]


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert find_reason('{"a":' + "1" * 5000 + "}").startswith("is not valid JSON: Exceeds the limit")


def test_a_complete_surrogate_pair_is_one_character() -> None:
    assert list_good(parse(r'{"a":"\ud83d\ude00"}')) == [(1, {"a": "😀"})]


def test_a_file_in_utf_16_is_recognized() -> None:
    assert "looks like UTF-16" in find_reason('{"a":1}'.encode("utf-16"))


# CSV


@given(NAMES, st.data(), st.sampled_from(["csv", "tsv"]), st.sampled_from(["\n", "\r\n"]))
def test_csv_is_read_back_as_it_was_written(names: list[str], data: st.DataObject, kind: str, end: str) -> None:
    table = data.draw(st.lists(st.lists(CELL, min_size=len(names), max_size=len(names)), max_size=4))
    written = io.StringIO()
    # Python's writer puts a lone carriage return into quotes only where it is part of its line end.
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    delimiter = {"csv": ",", "tsv": "\t"}[kind]
    csv.writer(written, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([names, *table])
    found = parse(written.getvalue(), kind)
    expected = [{name: cell for name, cell in zip(names, cells, strict=True) if cell} for cells in table]
    assert [values for _, values in list_good(found)] == [values for values in expected if values]
    assert list_bad(found) == []


def test_a_row_has_the_line_of_its_first_cell() -> None:
    """Also behind quoted line ends and empty lines."""
    content = '\ufeffa,b\r\n"one\r\ntwo",x\r\n\r\n"say ""hi""",\r\nlast'
    assert list_good(parse(content, "csv")) == [(2, {"a": "one\r\ntwo", "b": "x"}), (5, {"a": 'say "hi"'}), (6, {"a": "last"})]


def test_a_bad_row_of_a_table_has_the_line_on_which_it_begins() -> None:
    content = b'a,b\n1,2,3\n"x\ny","z"w\n\xff,1\n4,5\n"open,6\n7,8\n'
    found = parse(content, "csv")
    assert list_good(found) == [(6, {"a": "4", "b": "5"})]
    assert list_bad(found) == [
        (2, "has 3 cells, and there are 2 columns: a cell with a comma needs quotes"),
        (3, "is not valid CSV: ',' expected after '\"'"),
        (5, "is not UTF-8 from byte 1 on"),
        (7, "is not valid CSV: a quote is opened and never closed"),
    ]


def test_a_quote_that_is_never_closed_does_not_fill_the_memory() -> None:
    """Rows after the longest cell are read."""
    content = b'a\n"' + (b"x" * 1023 + b"\n") * (MAX_ROW_BYTES // 1024 + 100)
    found = parse(content, "csv")
    assert list_bad(found)[0] == (2, "is longer than 8 MiB, or a quote is opened and never closed")
    assert 0 < len(list_good(found)) <= 100


def test_a_cell_longer_than_pythons_own_limit_is_read() -> None:
    """Python's own limit is 128 KiB."""
    assert list_good(parse("a\n" + "x" * 200_000, "csv")) == [(2, {"a": "x" * 200_000})]


def test_the_line_end_of_old_macs_is_reported() -> None:
    assert find_reason("a,b\r1,2\r", "csv").endswith("there is a carriage return outside quotes: lines end in LF or CR LF")


def test_a_column_without_a_name_is_left_out() -> None:
    """As pandas writes its index."""
    assert list_good(parse(",prompt , b\n0,hi,\n", "csv")) == [(2, {"prompt": "hi"})]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("a,b,a", "has the column `a` twice"),
        (",,", "names no column"),
        ('"a', "the columns cannot be named: is not valid CSV: a quote is opened and never closed"),
    ],
)
def test_a_table_whose_columns_cannot_be_named_has_no_rows(head: str, reason: str) -> None:
    assert parse(f"{head}\n1,2,3\n", "csv") == [BadRow(1, reason)]


def test_an_empty_file_has_no_rows() -> None:
    assert parse("", "csv") == parse("", "jsonl") == parse("a,b\n", "csv") == []


# Parquet


def write_table(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_is_read_in_batches_with_the_numbers_of_its_rows(tmp_path: Path) -> None:
    count = 3 * BATCH_ROWS + 5
    path = write_table(tmp_path / "a.parquet", {"prompt": [f"p{n}" for n in range(count)], "seed": list(range(count))})
    assert list_good(list(read_rows(path))) == [(n + 1, {"prompt": f"p{n}", "seed": n}) for n in range(count)]


def test_values_of_parquet_become_values_of_json(tmp_path: Path) -> None:
    """Null is absent, also within an object, where Arrow writes one for what another object has."""
    columns = {
        "at": [datetime(2026, 1, 2, 3, tzinfo=UTC), None],
        "raw": [b"text", None],
        "messages": [
            [{"role": "user", "content": "hi"}, {"role": "user", "name": "Al", "content": "hm"}],
            [{"role": "user", "content": "x"}],
        ],
        "__index_level_0__": [7, 8],
    }
    assert list_good(list(read_rows(write_table(tmp_path / "a.parquet", columns)))) == [
        (
            1,
            {
                "at": "2026-01-02T03:00:00+00:00",
                "raw": "text",
                "messages": [{"role": "user", "content": "hi"}, {"role": "user", "name": "Al", "content": "hm"}],
            },
        ),
        (2, {"messages": [{"role": "user", "content": "x"}]}),
    ]


def parse_table(path: Path, template: str | None = None) -> list[RowItem | list[Fault]]:
    rows = read_rows(path)
    return [
        parse_row(row.values, PromptTemplate(template) if template else None, typed=False)
        for row in rows
        if isinstance(row, InputRow)
    ]


def test_columns_of_parquet_that_nothing_uses_never_stop_a_job(tmp_path: Path) -> None:
    columns = {
        "prompt": ["hi", "ho"],
        "nan": [math.nan, 1.5],
        "nanoseconds": pyarrow.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pyarrow.timestamp("ns")),
        "clock": pyarrow.array([123_456_789, 1_000], pyarrow.time64("ns")),
        "late": pyarrow.array([2**40, 0], pyarrow.timestamp("s")),
        "span": pyarrow.array([1, 2], pyarrow.duration("ns")),
        "picture": [{"bytes": b"\xff\xd8", "path": None}, {"bytes": b"ok", "path": "a.png"}],
        "raw": [b"\xff", b"text"],
        "matrix": [[[1.5, math.inf]], [[2.0]]],
        "pairs": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    }
    first, second = parse_table(write_table(tmp_path / "a.parquet", columns))
    assert isinstance(first, RowItem)
    assert isinstance(second, RowItem)
    assert first.values["nanoseconds"] == "2023-11-14T22:13:20.123456789"
    assert first.values.keys().isdisjoint({"nan", "picture", "raw", "matrix"})
    assert second.values["picture"] == {"bytes": "ok", "path": "a.png"}
    assert second.values["nan"] == 1.5


def test_a_value_that_json_cannot_hold_is_a_fault_of_its_row_where_it_is_used(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", {"x": [1.5, math.nan, 2.5], "y": [b"a", b"b", b"\xff"]})
    good, *bad = parse_table(path, "{{x}} {{y}}")
    assert isinstance(good, RowItem)
    assert bad == [
        [Fault("x", "holds nan, which JSON does not allow: leave it empty")],
        [Fault("y", "holds bytes that are not UTF-8 text")],
    ]


def test_an_id_that_a_table_keeps_as_a_fraction_is_read_as_the_whole_number_it_is(tmp_path: Path) -> None:
    (found,) = parse_table(write_table(tmp_path / "a.parquet", {"custom_id": [7.0], "prompt": ["x"], "max_tokens": [5.0]}))
    assert isinstance(found, RowItem)
    assert (found.custom_id, found.parameters) == ("7", {"max_tokens": 5})


def write_repeated(path: Path, cell: bytes, rows: int) -> Path:
    """Write a table whose one long cell stands in the file once, and in every row."""
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array([cell.decode()]))
    table = pyarrow.table({"prompt": repeated, "note": ["n"] * rows})
    parquet.write_table(table, path, dictionary_pagesize_limit=2**28, compression="zstd")
    return path


PEAK = """
import resource, sys
from pathlib import Path
from fanout.jobs.input_files import read_rows
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = read_rows(Path(sys.argv[1]))
kinds = [type(row).__name__ + ":" + ",".join(type(value).__name__ for value in row.values.values()) for row in rows]
print(len(kinds), sorted(set(kinds)), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_long_cell_that_a_dictionary_repeats_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = write_repeated(tmp_path / "a.parquet", b"x" * (24 * 2**20), 400)
    assert path.stat().st_size < 2**20
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("400 ['InputRow:UnusableValue,str'] "), done.stdout
    assert int(done.stdout.split()[-1]) < 400, done.stdout  # MB; 9,600 as they are written out


def test_rows_of_a_repeated_cell_that_is_allowed_are_read_one_by_one(tmp_path: Path) -> None:
    path = write_repeated(tmp_path / "a.parquet", b"x" * (6 * 2**20), 60)
    rows = [row for row in read_rows(path) if isinstance(row, InputRow)]
    assert [row.line for row in rows] == list(range(1, 61))
    assert {len(str(row.values["prompt"])) for row in rows} == {6 * 2**20}


def test_parquet_can_be_read_from_a_pipe(tmp_path: Path) -> None:
    """Its table of contents is at its end, so the pipe is copied to a file first."""
    path = write_table(tmp_path / "a.parquet", {"prompt": ["x"]})
    script = "import sys; from fanout.jobs.input_files import read_rows; print(list(read_rows(sys.stdin.buffer, 'parquet')))"
    done = subprocess.run([sys.executable, "-c", script], input=path.read_bytes(), capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[InputRow(line=1, values={'prompt': 'x'})]"


def test_a_file_that_is_parquet_only_by_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b'{"prompt": "hi"}\n' * 10)
    with pytest.raises(RequestError, match="is not a Parquet file"):
        list(read_rows(tmp_path / "a.parquet"))


def test_a_broken_parquet_file_ends_in_a_bad_row(tmp_path: Path) -> None:
    dice = random.Random(1)  # zeros in some compressed data would go unnoticed
    path = write_table(tmp_path / "a.parquet", {"prompt": [dice.randbytes(50).hex() for _ in range(2000)]}, compression="zstd")
    content = bytearray(path.read_bytes())
    content[1000:3000] = bytes(2000)
    path.write_bytes(content)
    ((_, reason),) = list_bad(list(read_rows(path)))
    assert reason.startswith("the file cannot be read from here on: ")


def test_without_pyarrow_the_error_names_what_to_install() -> None:
    script = """
import io, sys
sys.modules["pyarrow"] = None
from fanout.jobs.input_files import read_rows
from fanout.core.errors import Fault, RequestError
print(list(read_rows(io.BytesIO(b'{"a":1}'))))
try:
    read_rows(io.BytesIO(b""), "parquet")
except RequestError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[InputRow(line=1, values={'a': 1})]",
        f"format: Parquet needs {explain_missing_extra('pyarrow', 'parquet')}",
    ]


def test_pyarrow_is_not_loaded_for_text_formats() -> None:
    script = "import sys, fanout.jobs.input_files, fanout.jobs.output_files; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"


# Files


@pytest.mark.parametrize(
    ("name", "requested", "kind"),
    [
        ("a.jsonl", None, "jsonl"),
        ("A.JSONL.GZ", None, "jsonl"),
        ("a.b.ndjson", None, "jsonl"),
        ("a.csv", None, "csv"),
        ("a.tsv.gz", None, "tsv"),
        ("a.parquet", None, "parquet"),
        ("-", None, "jsonl"),
        ("-", "CSV", "csv"),
        ("a.txt", "ndjson", "jsonl"),
    ],
)
def test_the_requested_format_wins_over_the_name(name: str, requested: str | None, kind: str) -> None:
    assert choose_format(name, requested) == kind


@pytest.mark.parametrize(
    ("name", "requested", "sentence"),
    [
        ("a.doc", None, "input: `a.doc` has no known ending: .jsonl, .ndjson, .csv, .tsv, .txt, .parquet"),
        ("a.parquet.gz", None, "the text ones also with .gz; or name the format"),
        ("a.csv", "xlsx", "format: `xlsx` is not allowed: jsonl, csv, tsv, txt, parquet"),
    ],
)
def test_an_unknown_format_is_refused_before_anything_is_read(name: str, requested: str | None, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_rows(Path(name), requested)
    assert sentence in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"input: `.*none\.csv` cannot be read: No such file or directory"):
        list(read_rows(tmp_path / "none.csv"))


@pytest.mark.parametrize(("kind", "content"), [("jsonl", '{"a":"1"}\n' * 3), ("csv", "a\n" + "1\n" * 3)])
def test_gzip_is_recognized_by_its_content(kind: str, content: str) -> None:
    packed = gzip.compress(content.encode())
    assert [values for _, values in list_good(parse(packed, kind))] == [{"a": "1"}] * 3


def test_a_truncated_gzip_file_ends_in_a_bad_row() -> None:
    packed = gzip.compress("".join(json.dumps({"a": os.urandom(20).hex()}) + "\n" for _ in range(1000)).encode())
    found = parse(packed[: len(packed) // 2])
    ((line, reason),) = list_bad(found)
    assert line == len(found)
    assert reason.startswith("the file cannot be read from here on")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_stream_of_the_caller_stays_open(kind: str, tmp_path: Path) -> None:
    content = b'{"a":1}' if kind == "jsonl" else write_table(tmp_path / "a.parquet", {"a": [1]}).read_bytes()
    stream: BinaryIO = io.BytesIO(content)
    assert list_good(list(read_rows(stream, kind))) == [(1, {"a": 1})]
    assert not stream.closed


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """50,000 rows of 100 bytes are read within two megabytes. The whole million: scripts/bench/million_rows.py."""
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"prompt":"{number:086d}"}}\n' for number in range(50_000))
    tracemalloc.start()
    try:
        count = sum(isinstance(row, InputRow) for row in read_rows(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 2 * 2**20


# Bounds


def test_each_line_of_a_text_file_is_a_prompt() -> None:
    found = parse("\ufefffirst \r\n\n  second\n", "txt")
    assert list_good(found) == [(1, {"prompt": "first "}), (3, {"prompt": "  second"})]
    assert choose_format("prompts.txt") == "txt"


def test_further_cells_of_a_table_may_be_empty() -> None:
    assert list_good(parse("a,b,\n1,2,,,\n3,4\n", "csv")) == [(2, {"a": "1", "b": "2"}), (3, {"a": "3", "b": "4"})]
    assert "has 5 cells" in list_bad(parse("a,b\n1,2,,,x\n", "csv"))[0][1]


def measure_s(content: bytes, kind: str, reason: str) -> float:
    began = time.process_time()
    assert reason in list_bad(parse(content, kind))[0][1]
    return time.process_time() - began


def test_many_columns_are_refused_without_comparing_each_with_all_others() -> None:
    head = b",".join(b"c%d" % number for number in range(800_000))
    assert measure_s(head + b"\n1\n", "csv", "has 800,000 columns: at most 10,000 are allowed") < 5


def test_a_name_that_stands_twice_in_a_long_line_is_found_in_one_pass() -> None:
    names = ",".join(f'"n{number}":1' for number in range(90_000))
    assert measure_s(f'{{{names},"n89999":2}}\n'.encode(), "jsonl", "has the name `n89999` twice") < 5


def test_a_row_of_many_names_is_refused() -> None:
    found = parse_row({f"c{number}": "x" for number in range(10_001)})
    assert found == [Fault("", "has 10,001 names: at most 10,000 are allowed")]


def test_a_row_of_several_lines_is_bounded_like_one_of_one_line() -> None:
    row = b"".join(b'"%s",' % (b"x" * 1000 + b"\n") for _ in range(9000))
    assert "is longer than 8 MiB" in list_bad(parse(b"a\n" + row + b"1\n", "csv"))[0][1]


@pytest.mark.parametrize(
    ("kind", "line"), [("jsonl", b"\n"), ("jsonl", b"  \n"), ("csv", b"\n"), ("csv", b",,\n"), ("txt", b"\n")]
)
def test_empty_lines_without_end_are_not_read_to_their_end(kind: str, line: bytes) -> None:
    head = b"a,b\n" if kind == "csv" else b""
    found = parse(head + line * 300_000, kind)
    assert [reason for _, reason in list_bad(found)] == [
        "the file cannot be read from here on: more than 100,000 lines are empty"
    ]


def compress(line: bytes, size: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
        for _ in range(size // len(line)):
            stream.write(line)
    return packed.getvalue()


@pytest.mark.parametrize("line", [b'{"prompt": "hello"}\n' * 1000, b"x" * 100_000], ids=["rows", "one line"])
async def test_what_a_small_file_unpacks_to_is_bounded(line: bytes) -> None:
    content = compress(line, 50_000_000)
    rows = read_rows(io.BytesIO(content), "jsonl")
    found = await load_in_thread(lambda: list(rows), LoadingBudget(1_000_000, 10_000))
    assert list_bad(found)[-1][1].endswith("it unpacks to more than 1,000,000 bytes (FANOUT_MAX_JOB_BYTES)")


@timed
async def test_a_loading_that_is_cancelled_stops_in_the_middle_of_a_row() -> None:
    content, begun, ended = compress(b"x" * 100_000, 400_000_000), threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        try:
            list(read_rows(io.BytesIO(content), "jsonl"))
        finally:
            ended.set()

    loading = asyncio.create_task(load_in_thread(read, LoadingBudget(2**40, 10_000)))
    assert await asyncio.to_thread(begun.wait, 5)
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    began = time.monotonic()
    assert await asyncio.to_thread(ended.wait, 5)
    assert time.monotonic() - began < 0.5


def write_many_rows(kind: str, count: int) -> io.BytesIO:
    """Return a small file of so many rows."""
    if kind == "parquet":
        file = io.BytesIO()
        parquet.write_table(pyarrow.table({"prompt": pyarrow.array(["a"] * count).dictionary_encode()}), file)
        file.seek(0)
        return file
    line = {"jsonl": b'{"prompt":"a"}\n', "csv": b"a,b\n", "tsv": b"a\tb\n", "txt": b"a\n"}[kind]
    return io.BytesIO(compress(line * 1_000, count * len(line)))


@pytest.fixture
def least_unpacked(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower what any file may unpack to, so that files can be small here."""
    monkeypatch.setattr(loading, "MIN_UNPACKED_BYTES", 500_000)
    return 500_000


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt", "parquet"])
async def test_a_small_file_of_countless_rows_is_not_read_to_its_end(kind: str, least_unpacked: int) -> None:
    rows = read_rows(write_many_rows(kind, 60_000), kind)
    found = await load_in_thread(lambda: list(rows), LoadingBudget(2**40, 100))
    (bad,) = list_bad(found)
    assert "it unpacks to more than 100 times its size (FANOUT_MAX_UNPACK_RATIO)" in bad[1]
    assert 1_000 < len(found) < least_unpacked // 64 + 2


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt", "parquet"])
async def test_the_rows_of_files_as_people_have_them_are_all_read(kind: str, least_unpacked: int) -> None:
    texts = [f"What is {number} + {number * 7 % 1001}?" for number in range(40_000)]
    file = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"prompt": texts, "system": ["Answer."] * len(texts)}), file)
        file.seek(0)
    else:
        head = {"csv": "prompt,system\n", "tsv": "prompt\tsystem\n"}.get(kind, "")
        forms = {"jsonl": '{{"prompt":"{}","system":"Answer."}}', "csv": "{},Answer.", "tsv": "{}\tAnswer.", "txt": "{}"}
        written = head + "".join(forms[kind].format(text) + "\n" for text in texts)
        file = io.BytesIO(gzip.compress(written.encode()))
    rows = read_rows(file, kind)
    found = await load_in_thread(lambda: list(rows), LoadingBudget(2**40, 100))
    assert (len(found), list_bad(found)) == (40_000, [])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt", "parquet"])
async def test_a_loading_that_is_stopped_reads_no_further_row(kind: str) -> None:
    rows, budget = read_rows(write_many_rows(kind, 5_000), kind), LoadingBudget(2**40, 10_000)
    assert await load_in_thread(lambda: next(rows), budget)
    budget.stop()
    with pytest.raises(LoadingStoppedError):
        await load_in_thread(lambda: list(islice(rows, 1)), budget)
