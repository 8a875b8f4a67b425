"""Decoding of server-sent events that are cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.providers.transport.line_decoder import Event
from fanout.providers.transport.sse import SseDecoder

STREAMS = st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"data:",
            b"data",
            b"event: e\n",
            b": note\n",
            b"id: 1\n",
            b"\n",
            b"\n\n",
            b"\r\n",
            b"\r",
            b"x",
            b"\xc3\xa9",
        ]
    ),
    max_size=30,
).map(b"".join)


def decode(*pieces: bytes, max_event_bytes: int = 1000) -> list[Event]:
    decoder = SseDecoder(max_event_bytes)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [*events, *decoder.close()]


def decode_by_the_standard(stream: bytes) -> list[Event]:
    """Decode by the standard's algorithm, line by line, except for a last event without its blank line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    name, data = None, None
    for line in [*text.split(b"\n"), b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data is not None:
                events.append((name, data))
            name, data = None, None
        elif field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value.decode() or None
    return events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [(None, b"a"), (None, b"b")]),
        (b"data:a\n\n", [(None, b"a")]),
        (b"data:  a\n\n", [(None, b" a")]),
        (b"data: a\ndata: b\n\n", [(None, b"a\nb")]),
        (b"data: a\r\n\r\ndata: b\r\r", [(None, b"a"), (None, b"b")]),
        (b"event: error\ndata: {}\n\n", [("error", b"{}")]),
        (b"event:\ndata: {}\n\n", [(None, b"{}")]),
        (b": OPENROUTER PROCESSING\n\n: again\n\ndata: a\n\n", [(None, b"a")]),
        (b"id: 7\nretry: 10\nunknown\ndata: a\n\n", [(None, b"a")]),
        (b"event: ping\n\ndata: a\n\n", [(None, b"a")]),
        (b"\n\n\n\ndata: a\n\n\n\n", [(None, b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(None, b"a")]),
        (b"data: a\n\ndata: [DONE]", [(None, b"a"), (None, b"[DONE]")]),
        (b"data\n\n", [(None, b"")]),
        (b"", []),
    ],
    ids=repr,
)
def test_events_follow_the_standard(stream: bytes, events: list[Event]) -> None:
    """Data of several lines, comments, names, every kind of line end, and a last event without an end."""
    assert decode(stream) == events == decode_by_the_standard(stream)


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_cuts_of_the_bytes_do_not_change_the_events(stream: bytes, cuts: list[int], marked: bool) -> None:
    """This holds inside a line end, a UTF-8 sequence and the byte order mark."""
    stream = b"\xef\xbb\xbf" + stream if marked else stream
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert decode(*pieces) == decode(stream) == decode(*[bytes([byte]) for byte in stream]) == decode_by_the_standard(stream)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_event_beyond_the_limit_ends_the_stream(size: int) -> None:
    """Whole or in pieces, an upstream cannot fill the memory with one line."""
    stream = b"data: ok\n\ndata: " + b"a" * 2000 + b"\n\n"
    with pytest.raises(ProviderError) as caught:
        decode(*[stream[start : start + size] for start in range(0, len(stream), size)])
    assert (caught.value.failure.kind, caught.value.failure.code) == ("malformed", "event_too_large")


def test_many_events_may_together_exceed_the_limit() -> None:
    """The limit is for each event."""
    assert len(decode(b"data: 0123456789\n\n" * 1000)) == 1000
