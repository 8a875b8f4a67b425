"""AWS's event stream, read as botocore reads it."""

from __future__ import annotations

from binascii import crc32
from struct import error, pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.errors import ProviderError
from fanout.providers.bedrock.event_stream import MAX_HEAD_BYTES, FrameDecoder
from fanout.providers.mapping.failures import Origin
from tests.support.bedrock_format import CALL, UP, import_botocore
from tests.support.provider_calls import expect_failure, try_stream


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_senseless_frames_are_read_as_botocore_reads_them(head: bytes, payload: bytes) -> None:
    """Right checksums over headers and payloads that are none."""
    assert expect_failure(try_stream(UP, CALL, [build_frame(head, payload)])).kind in ("malformed", "network", "server")


def decode_frames(body: bytes) -> list[tuple[dict[str, Any], bytes]] | None:
    """Return what our decoder makes of a stream; `None` where it is damaged."""
    try:
        return list(FrameDecoder(Origin("up", ()), 2**24).feed(body))
    except ProviderError:
        return None


def decode_with_botocore(body: bytes) -> list[tuple[dict[str, Any], bytes]] | None:
    module = import_botocore("botocore.eventstream")
    buffer = module.EventStreamBuffer()
    buffer.add_data(body)
    try:
        return [(message.headers, message.payload) for message in buffer]
    except (module.ParserError, error, KeyError, ValueError):
        return None


def build_frame(head: bytes, payload: bytes) -> bytes:
    """A message whose checksums are right, whatever is in it."""
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


NAMES = st.text(max_size=5).map(lambda name: pack("!B", len(name.encode())) + name.encode())
VALUES = st.one_of(
    st.sampled_from([b"\0", b"\1"]),
    st.integers(-128, 127).map(lambda number: b"\2" + pack("!b", number)),
    st.integers(-(2**15), 2**15 - 1).map(lambda number: b"\3" + pack("!h", number)),
    st.integers(-(2**31), 2**31 - 1).map(lambda number: b"\4" + pack("!i", number)),
    st.tuples(st.sampled_from([b"\5", b"\x08"]), st.integers(-(2**63), 2**63 - 1)).map(lambda one: one[0] + pack("!q", one[1])),
    st.binary(max_size=5).map(lambda data: b"\6" + pack("!H", len(data)) + data),
    st.text(max_size=5).map(lambda text: b"\7" + pack("!H", len(text.encode())) + text.encode()),
    st.binary(min_size=16, max_size=16).map(lambda data: b"\x09" + data),
)
HEADS = st.lists(st.tuples(NAMES, VALUES).map(b"".join), max_size=4).map(b"".join)


@given(st.lists(st.tuples(HEADS | st.binary(max_size=30), st.binary(max_size=30)), max_size=4))
def test_frames_are_read_as_botocore_reads_them(items: list[tuple[bytes, bytes]]) -> None:
    """All types of headers, and heads that are none: of those neither makes anything."""
    body = b"".join(build_frame(*item) for item in items)
    assert decode_frames(body) == decode_with_botocore(body)


@given(st.integers(0, 2**32 - 1) | st.integers(0, 60), st.integers(0, 2**32 - 1) | st.integers(0, 60), st.binary(max_size=80))
def test_impossible_lengths_are_refused(size: int, head: int, rest: bytes) -> None:
    """No length makes a reader wait for ever, take in everything, or read a message that is none."""
    prelude = pack("!II", size, head)
    found = decode_frames(prelude + pack("!I", crc32(prelude)) + rest)
    assert not found
    assert found is None or 16 + head <= size <= 2**24 + MAX_HEAD_BYTES
