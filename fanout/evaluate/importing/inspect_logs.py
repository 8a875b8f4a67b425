"""Samples of Inspect: its logs `.eval`, a zip of JSON files, and `.json`.

Source: `EvalLog`, `EvalSample` and `value_to_float`, https://inspect.aisi.org.uk/reference/inspect_ai.log.html
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.evaluate.importing.samples import MAX_SAMPLE_BYTES, ImportedSamples, Sample, read_object, to_number

LETTERS: Mapping[str, float] = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partially, incorrect, no answer."""
WORDS: Mapping[str, float] = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
MAX_LOG_BYTES = 2**30
ZSTANDARD = 93
"""Number of the method in zip files."""
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""Before each file of a zip; the last two numbers are the lengths of the name and of the extra field behind it."""


def read_inspect(path: Path, model: str | None, found: ImportedSamples) -> None:
    """Add the samples of one log; `model` is its name, by default that of the log. Raises like `read_lm_eval`."""
    header, samples = _read_zip(path) if zipfile.is_zipfile(path) else _read_json(path)
    about = header.get("eval")
    if not isinstance(about, Mapping) or "model" not in about:
        raise RequestError([Fault(path.name, "has no `eval` with a `model`: is it a log of Inspect?")])
    task = str(about.get("task") or path.stem)
    for place, sample in samples:
        found.add(_read_sample(sample, place, task, model or str(about["model"]), found))


def _read_zip(path: Path) -> tuple[Mapping[str, Any], Iterator[tuple[str, Mapping[str, Any]]]]:
    archive = zipfile.ZipFile(path)

    def read(name: str) -> Mapping[str, Any]:
        place = f"{path.name}: {name}"
        # Its size unpacked, before it is: a few bytes can unpack to any number of them.
        if archive.getinfo(name).file_size > MAX_SAMPLE_BYTES:
            raise RequestError([Fault(place, f"unpacks to more than {MAX_SAMPLE_BYTES:,} bytes")])
        return read_object(_unpack(archive, archive.getinfo(name), place), place)

    names = archive.namelist()
    if "header.json" not in names:
        raise RequestError([Fault(path.name, "has no `header.json`: is it a log of Inspect that has ended?")])
    samples = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
    return read("header.json"), ((f"{path.name}: {name}", read(name)) for name in samples)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> bytes:
    """Return a file of a zip; Python before 3.14 does not know Zstandard, by which Inspect packs."""
    try:
        return archive.read(info)
    except NotImplementedError:
        if info.compress_type != ZSTANDARD or archive.fp is None:
            sentence = "is packed in a way that is not known here; `inspect log convert --to json` makes a `.json` of it"
            raise RequestError([Fault(place, sentence)]) from None
    try:
        import zstandard
    except ImportError:
        raise RequestError([Fault(place, f"needs {explain_missing_extra('zstandard', 'evaluate')}")]) from None
    archive.fp.seek(info.header_offset)
    *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(archive.fp.read(LOCAL_HEADER.size))
    archive.fp.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    packed = archive.fp.read(info.compress_size)
    try:
        # No more than it declares, however much it unpacks to.
        content: bytes = zstandard.ZstdDecompressor().stream_reader(packed).read(info.file_size)
    except zstandard.ZstdError as error:
        raise RequestError([Fault(place, f"cannot be unpacked: {error}")]) from None
    if zlib.crc32(content) != info.CRC:
        raise RequestError([Fault(place, "cannot be unpacked: it is damaged")])
    return content


def _read_json(path: Path) -> tuple[Mapping[str, Any], Iterator[tuple[str, Mapping[str, Any]]]]:
    if path.stat().st_size > MAX_LOG_BYTES:
        raise RequestError([Fault(path.name, f"is larger than {MAX_LOG_BYTES:,} bytes: use the `.eval` log")])
    whole = read_object(path.read_bytes(), path.name)
    samples = whole.get("samples")
    found = samples if isinstance(samples, list) else []
    return whole, ((f"{path.name}: samples[{number}]", sample) for number, sample in enumerate(found))


def _read_sample(sample: Mapping[str, Any], place: str, task: str, model: str, found: ImportedSamples) -> Sample:
    if not isinstance(sample, Mapping) or "id" not in sample or "input" not in sample:
        raise RequestError([Fault(place, "has no `id` and `input`")])
    output = sample.get("output") or {}
    error = sample.get("error")
    usage = next(iter((sample.get("model_usage") or {}).values()), None) or output.get("usage") or {}
    return Sample(
        model=model,
        item=(task, str(sample["id"])),
        repeat=max(int(sample.get("epoch") or 1) - 1, 0),
        prompt=_to_prompt(sample["input"]),
        reference=sample.get("target"),
        text=None if error else str(output.get("completion") or ""),
        scores=dict(_list_scores(sample.get("scores") or {}, found)),
        error=str(error.get("message") if isinstance(error, Mapping) else error)[:500] if error else None,
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        seconds=to_number(output.get("time")),
    )


def _list_scores(scores: Mapping[str, Any], found: ImportedSamples) -> Iterator[tuple[str, float]]:
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, Mapping) else score
        parts = {f"{name}/{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
        for label, one in parts.items():
            number = LETTERS.get(one, WORDS.get(one.lower())) if isinstance(one, str) else to_number(one)
            if number is None:
                found.leave_out(f"score `{label}`, whose value is no number")
            else:
                yield label, number


def _to_prompt(value: object) -> object:
    """Return the text of the input; of messages the text of each, by role."""
    if not isinstance(value, list):
        return value
    lines = []
    for message in value:
        content = message.get("content") if isinstance(message, Mapping) else message
        if isinstance(content, list):
            content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
        lines.append(f"{message.get('role', 'user')}: {content}" if isinstance(message, Mapping) else str(content))
    return "\n".join(lines)
