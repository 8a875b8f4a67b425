"""Time and memory for reading, checking and writing job files of many rows, each format in its own process.

usage: million_rows.py [ROWS]      by default 1,000,000; prints one JSON object for each step:
                                   {"step": …, "format": …, "rows": …, "mb": …, "s": …, "peak_rss_mb": …}
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fanout.jobs.input_files import TYPED_FORMATS, read_rows
from fanout.jobs.input_formats.rows import InputRow
from fanout.jobs.output_files import choose_format, make_encoder, open_output
from fanout.jobs.row_parser import RowItem, parse_row
from fanout.jobs.template import PromptTemplate

WORDS = "The quick brown fox jumps over the lazy dog while everyone else is asleep. " * 3


def make_row(number: int) -> dict[str, Any]:
    return {"custom_id": f"row-{number}", "question": f"{number}: {WORDS}", "reference": "a dog", "temperature": 0.5}


def generate_input(path: Path, count: int) -> None:
    """Write an input file without holding it in memory."""
    numbers = range(count)
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(make_row(number)) + "\n" for number in numbers)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, make_row(0))
            writer.writeheader()
            writer.writerows(map(make_row, numbers))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.Table.from_pylist([make_row(0)]).schema
        with parquet.ParquetWriter(path, schema) as writer:  # one row group, as pandas would write it
            batches = [pa.RecordBatch.from_pylist([make_row(n) for n in some], schema) for some in split_range(numbers, 10_000)]
            writer.write_table(pa.Table.from_batches(batches), row_group_size=count)


def split_range(numbers: range, size: int) -> Iterator[range]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def read_input(path: Path) -> int:
    """Read and check every row and write it as JSON; return the number of rows."""
    template, count = PromptTemplate("Answer briefly: {{question}}"), 0
    for row in read_rows(path):
        assert isinstance(row, InputRow), row
        item = parse_row(row.values, template, typed=path.suffix[1:] in TYPED_FORMATS)
        assert isinstance(item, RowItem), item
        item.to_json()
        count += 1
    return count


def write_output(path: Path, count: int) -> int:
    record = {"item": 0, "entry": 0, "model": "m", "prompt": WORDS, "text": WORDS, "total_ms": 5, "ended": 1e9}
    encoder = make_encoder(choose_format(path.name))
    with open_output(path) as write:
        for some in split_range(range(count), 256):
            write(encoder.encode([{**record, "item": number, "text": f"{number} {WORDS}"} for number in some]))
        write(encoder.close())
    return count


def main() -> None:
    if len(sys.argv) == 4:
        run_step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".jsonl", ".csv", ".parquet"):
            for name, file in (("generate", "input"), ("read", "input"), ("write", "output")):
                subprocess.run([sys.executable, __file__, name, str(Path(folder, file + suffix)), count], check=True)
            for path in Path(folder).iterdir():
                path.unlink()


def run_step(name: str, path: Path, count: int) -> None:
    """Run one step in this process."""
    if name == "generate":
        generate_input(path, count)
        return
    began = time.perf_counter()
    done = read_input(path) if name == "read" else write_output(path, count)
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = round(path.stat().st_size / 1e6)
    result = {"step": name, "format": path.suffix[1:], "rows": done, "mb": size, "s": round(seconds, 1)}
    print(json.dumps({**result, "peak_rss_mb": round(peak_mb)}), flush=True)


if __name__ == "__main__":
    main()
