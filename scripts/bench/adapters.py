"""The cost of adapters compared with parsing the JSON alone: a request and its answer, and a piece of a stream."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns
from typing import Any

from bench import Bench
from exchanges import MAKERS, Exchange, read_recorded
from multidict import CIMultiDict
from table import Row

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Query, Target
from fanout.providers import create
from fanout.providers.transport.http import HttpProvider

MAX_WHOLE_RATIO, MAX_PIECE_RATIO = 8, 4
TURNS = 9
PROMPT = "Say in one sentence what the capital of France is, and why. " * 4
SAMPLING = Sampling(max_tokens=100, temperature=0.5, stop=("END",))
HEADERS: CIMultiDict[str] = CIMultiDict({"Content-Type": "application/json", "x-request-id": "req-0123456789"})


def measure_adapters(bench: Bench) -> list[Row]:
    """Measure every format, whole and streamed."""
    exchanges = dict(read_recorded(bench.recorded)) if bench.recorded else {name: make() for name, make in MAKERS.items()}
    return [row for name, exchange in exchanges.items() for row in _measure_format(name, exchange, bench)]


def _measure_format(name: str, exchange: Exchange, bench: Bench) -> Iterator[Row]:
    provider, query = _make_provider(exchange.adapter), _make_query(exchange)
    target = Target(exchange.model, exchange.model, "up", exchange.model, "text" if exchange.kind == "text" else "chat")
    call = Call(0, 0, 0, target, query, fitted=provider.fit(target, query))
    answer, request = exchange.whole or b"", json.loads(b"".join(provider.encode(call, stream=False).pieces))

    def read_whole() -> Completion:
        new_call = Call(0, 0, 0, target, query, fitted=provider.fit(target, query))
        provider.encode(new_call, stream=False)
        return provider.decode(new_call, 200, HEADERS, answer)

    def parse_whole() -> None:
        json.dumps(request)
        json.loads(answer)

    def read_stream() -> Completion:
        events = provider.open_reader(call, HEADERS)
        for piece in exchange.pieces:
            events.feed(piece)
        events.flush()
        return events.close()

    def parse_stream() -> None:
        for payload in exchange.payloads:
            json.loads(payload)

    if answer and (errors := _count_wrong(exchange, read_whole)) is not None:
        samples = _measure_in_turns({"floor": parse_whole, "fanout": read_whole}, 1, bench)
        yield Row.from_samples(f"adapter {name}: whole", "µs", samples, against="ratio", must=MAX_WHOLE_RATIO, errors=errors)
    if exchange.pieces and (errors := _count_wrong(exchange, read_stream)) is not None:
        samples = _measure_in_turns({"floor": parse_stream, "fanout": read_stream}, len(exchange.payloads), bench)
        yield Row.from_samples(f"adapter {name}: piece", "µs", samples, against="ratio", must=MAX_PIECE_RATIO, errors=errors)


def _count_wrong(exchange: Exchange, read: Callable[[], Completion]) -> int | None:
    """Return the number of answers read wrongly; `None` for a recorded answer that is a failure, as some are."""
    try:
        text = read().choices[0].message.text
    except ProviderError:
        return None if exchange.text is None else 1
    return int(exchange.text not in (None, text))


def _make_provider(adapter: str) -> HttpProvider:
    nowhere: Any = None
    row = ProviderRow(adapter=adapter, headers={"aws-region": "us-east-1"} if adapter == "bedrock" else {})
    provider = create(ProviderSettings("up", row, "bench", "https://up.test/v1", None, {}, (), None, 2**24), nowhere)
    assert isinstance(provider, HttpProvider)
    return provider


def _make_query(exchange: Exchange) -> Query:
    if exchange.kind == "text":
        return Query(prompt=PROMPT, sampling=SAMPLING)
    return Query(messages=(Message("system", "Be brief."), Message("user", PROMPT)), sampling=SAMPLING)


def _measure_in_turns(measures: Mapping[str, Callable[[], Any]], size: int, bench: Bench) -> dict[str, list[float]]:
    """Return microseconds for each of `size` steps, measured in turns."""
    samples: dict[str, list[float]] = {name: [] for name in measures}
    turn_ns = 2e7 if bench.quick else 1e8
    gc.disable()
    try:
        times = {name: max(1, int(turn_ns / _time_once(measure, 20))) for name, measure in measures.items()}
        for _ in range(TURNS):
            for name, measure in measures.items():
                samples[name].append(_time_once(measure, times[name]) / size / 1e3)
    finally:
        gc.enable()
    return samples


def _time_once(measure: Callable[[], Any], times: int) -> float:
    """Return the mean nanoseconds of a run."""
    began = perf_counter_ns()
    for _ in range(times):
        measure()
    return (perf_counter_ns() - began) / times
