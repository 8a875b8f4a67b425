"""What an adapter costs beside the JSON alone: encoding a request and decoding its answer, and a piece of a stream."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns
from typing import Any

from bench import Bench
from exchanges import MADE, Exchange, recorded
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

MUST_WHOLE, MUST_PIECE = 8, 4
TURNS = 9
PROMPT = "Say in one sentence what the capital of France is, and why. " * 4
SAMPLING = Sampling(max_tokens=100, temperature=0.5, stop=("END",))
HEADERS: CIMultiDict[str] = CIMultiDict({"Content-Type": "application/json", "x-request-id": "req-0123456789"})


def adapters(bench: Bench) -> list[Row]:
    """Every format, whole and streamed."""
    exchanges = dict(recorded(bench.recorded)) if bench.recorded else {name: make() for name, make in MADE.items()}
    return [row for name, exchange in exchanges.items() for row in _rows(name, exchange, bench)]


def _rows(name: str, exchange: Exchange, bench: Bench) -> Iterator[Row]:
    provider, query = _provider(exchange.adapter), _query(exchange)
    target = Target(exchange.model, exchange.model, "up", exchange.model, "text" if exchange.kind == "text" else "chat")
    call = Call(0, 0, 0, target, query, fitted=provider.fit(target, query))
    answer, asked = exchange.whole or b"", json.loads(provider.encode(call, stream=False).body)

    def whole() -> Completion:
        made = Call(0, 0, 0, target, query, fitted=provider.fit(target, query))
        provider.encode(made, stream=False)
        return provider.decode(made, 200, HEADERS, answer)

    def whole_floor() -> None:
        json.dumps(asked)
        json.loads(answer)

    def stream() -> Completion:
        events = provider.open_reader(call, HEADERS)
        for piece in exchange.pieces:
            events.feed(piece)
        events.flush()
        return events.close()

    def stream_floor() -> None:
        for payload in exchange.payloads:
            json.loads(payload)

    if answer and (wrong := _wrong(exchange, whole)) is not None:
        taken = _by_turns({"floor": whole_floor, "fanout": whole}, 1, bench)
        yield Row.of(f"adapter {name}: whole", "µs", taken, against="ratio", must=MUST_WHOLE, errors=wrong)
    if exchange.pieces and (wrong := _wrong(exchange, stream)) is not None:
        taken = _by_turns({"floor": stream_floor, "fanout": stream}, len(exchange.payloads), bench)
        yield Row.of(f"adapter {name}: piece", "µs", taken, against="ratio", must=MUST_PIECE, errors=wrong)


def _wrong(exchange: Exchange, read: Callable[[], Completion]) -> int | None:
    """How many answers are not read as they should be; `None` for a recorded one that is a failure, as some are."""
    try:
        said = read().choices[0].message.text
    except ProviderError:
        return None if exchange.says is None else 1
    return int(exchange.says not in (None, said))


def _provider(adapter: str) -> HttpProvider:
    nowhere: Any = None
    row = ProviderRow(adapter=adapter, headers={"aws-region": "us-east-1"} if adapter == "bedrock" else {})
    provider = create(ProviderSettings("up", row, "bench", "https://up.test/v1", None, {}, (), None, 2**24), nowhere)
    assert isinstance(provider, HttpProvider)
    return provider


def _query(exchange: Exchange) -> Query:
    if exchange.kind == "text":
        return Query(prompt=PROMPT, sampling=SAMPLING)
    return Query(messages=(Message("system", "Be brief."), Message("user", PROMPT)), sampling=SAMPLING)


def _by_turns(measures: Mapping[str, Callable[[], Any]], size: int, bench: Bench) -> dict[str, list[float]]:
    """Microseconds of one of `size` steps, A B A B …"""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    turn_ns = 2e7 if bench.quick else 1e8
    gc.disable()
    try:
        times = {name: max(1, int(turn_ns / _once(measure, 20))) for name, measure in measures.items()}
        for _ in range(TURNS):
            for name, measure in measures.items():
                taken[name].append(_once(measure, times[name]) / size / 1e3)
    finally:
        gc.enable()
    return taken


def _once(measure: Callable[[], Any], times: int) -> float:
    """Nanoseconds of one run, over so many."""
    begin = perf_counter_ns()
    for _ in range(times):
        measure()
    return (perf_counter_ns() - begin) / times
