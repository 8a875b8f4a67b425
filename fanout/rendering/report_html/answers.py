"""Answers of a job, packed for the document: chunks of items, compressed each for itself, and an index of all of them.

The browser unpacks the index at once, and a chunk only when its rows come into sight, so that neither it nor this process
ever holds all answers.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fanout.core.json_text import JsonObject, dump
from fanout.rendering.report import MetricJson, ReportJson

CHUNK_ITEMS = 250
CHUNK_BYTES = 512 * 1024
"""Of JSON. One item may be longer: a chunk holds at least one."""
MAX_BYTES = 512 * 2**20
"""Of JSON in all; what follows stays out of the file, which says so."""
HAS_ERROR, IS_DIFFERENT = 1, 2
DIGITS = 6


class AnswerPack:
    """The answers of a job, item by item."""

    def __init__(self, report: ReportJson, *, by_label: bool, max_bytes: int = MAX_BYTES) -> None:
        """Create an empty pack.

        Args:
            report: of the same job.
            by_label: rows name their own models, so that results belong together by label, and not by place in `models`.
            max_bytes: of JSON.
        """
        self._max_bytes, self._size, self._total = max_bytes, 0, 0
        self._of_item: list[JsonObject] = []
        self._waiting: list[bytes] = []
        self.is_full = False
        """True once an item did not fit; those that follow it do not either."""
        self._models = [model["model"] for model in report["models"]]
        self._columns = {name: place for place, name in enumerate(self._models)} if by_label else None
        self._metrics: Sequence[MetricJson] = report["metrics"]
        self._flags: list[int] = []
        self._means: list[list[list[float | None]]] = [[] for _ in self._metrics]
        self._firsts: list[int] = []
        self.total = report["job"]["items"]

    @property
    def items(self) -> int:
        """Items packed so far."""
        return len(self._flags)

    def add(self, records: Iterable[JsonObject]) -> Iterator[str]:
        """Yield the chunks that result records complete; they come sorted by item, in parts as large as one likes."""
        for record in records:
            if self._of_item and record["item"] != self._of_item[0]["item"]:
                yield from self._take_item()
            if self.is_full:
                return
            self._of_item.append(record)

    def close(self) -> Iterator[str]:
        """Yield the last chunks."""
        if self._of_item:
            yield from self._take_item()
        if self._waiting:
            yield self._take_chunk(self.items)

    def _take_item(self) -> Iterator[str]:
        """Yield the chunk before an item, where the item begins another one."""
        line = dump(self._add(self._of_item))
        self._of_item = []
        self._total += len(line)
        if self._total > self._max_bytes and self.items > 1:
            self._forget_last()
            self.is_full = True
            return
        if self._waiting and (self._size + len(line) > CHUNK_BYTES or len(self._waiting) == CHUNK_ITEMS):
            yield self._take_chunk(self.items - 1)
        self._waiting.append(line)
        self._size += len(line)

    def _take_chunk(self, end: int) -> str:
        self._firsts.append(end - len(self._waiting))
        content = b"[" + b",".join(self._waiting) + b"]"
        self._waiting, self._size = [], 0
        return compress(content)

    def build_index(self) -> JsonObject:
        """Return what filters and the table need to know of every item."""
        return {
            "models": self._models,
            "metrics": [{"name": metric["name"], "up": metric["is_higher_better"]} for metric in self._metrics],
            "items": self.items,
            "total": self.total,
            "firsts": self._firsts,
            "flags": "".join(map(str, self._flags)),
            "means": self._means,
        }

    def _forget_last(self) -> None:
        self._flags.pop()
        for means in self._means:
            means.pop()

    def _add(self, records: Sequence[JsonObject]) -> JsonObject:
        """Return an item with the results of each model, and note its place in the index."""
        results: list[list[JsonObject]] = [[] for _ in self._models]
        for record in records:
            column = record["entry"] if self._columns is None else self._columns.get(record["label"])
            if column is not None and column < len(results):  # a model that came after the report was made has no column
                results[column].append(record)
        answers = {_identify(record) for of_model in results for record in of_model if not record["error_kind"]}
        failed = any(record["error_kind"] for of_model in results for record in of_model)
        self._flags.append(HAS_ERROR * failed + IS_DIFFERENT * (len(answers) > 1))
        for metric, means in zip(self._metrics, self._means, strict=True):
            means.append([_average(of_model, metric) for of_model in results])
        first = records[0]
        named = {"id": first["custom_id"]} if first["custom_id"] is not None else {}
        reference = {"r": to_text(first["reference"])} if first["reference"] is not None else {}
        cells = [[_pack(record) for record in of_model] for of_model in results]
        return {"n": first["item"], "p": to_text(first["prompt"]), **named, **reference, "a": cells}


def compress(content: bytes) -> str:
    """Return content compressed, as text that can stand in any document."""
    return b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _average(records: Sequence[JsonObject], metric: MetricJson) -> float | None:
    """Return a model's score of an item: the mean of its repeats, failed ones as the report counts them."""
    values = []
    for record in records:
        if record["error_kind"]:
            if metric["failures_are_zero"]:
                values.append(0.0)
            continue
        score = record["scores"].get(metric["name"])
        if score is not None and score["value"] is not None:
            values.append(score["value"])
    return round(sum(values) / len(values), DIGITS) if values else None


def _identify(record: JsonObject) -> bytes:
    return dump([record[name] for name in ("text", "tool_calls", "refusal")])


def _pack(record: JsonObject) -> JsonObject:
    """Return what the document shows of a result; what is not known is left out."""
    calls = record["tool_calls"]
    parts = (record["text"], record["refusal"], dump(calls).decode() if calls else None)
    scores = {name: score["value"] for name, score in (record["scores"] or {}).items()}
    packed: Mapping[str, Any] = {
        "t": "\n".join(filter(None, parts)) or None,
        "e": record["error_kind"],
        "m": record["error_message"],
        "f": record["finish_reason"],
        "k": record["completion_tokens"],
        "ms": record["total_ms"],
        "c": record["cost_usd"],
        "s": scores or None,
    }
    return {name: value for name, value in packed.items() if value is not None}


def to_text(value: Any) -> str:
    """Return a prompt or a reference as people read it: texts as they are, messages by role, anything else as JSON."""
    if isinstance(value, str):
        return value
    if _holds_all(value, "role"):
        return "\n\n".join(f"{message['role']}: {to_text(message.get('content', ''))}" for message in value)
    if _holds_all(value, "text"):
        return "\n".join(part["text"] for part in value)
    return dump(value).decode()


def _holds_all(value: Any, name: str) -> bool:
    """Return whether a value is a list of objects that all have a text of this name."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and isinstance(one.get(name), str) for one in value)
    )
