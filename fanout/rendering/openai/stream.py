"""Chunks of a stream, each of one choice."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fanout.core.json_text import encode_json
from fanout.core.merge import list_choices
from fanout.core.schema import Call, Delta, Outcome
from fanout.rendering.choices import render_place
from fanout.rendering.openai.answers import Dialect, Fragment, OpenAiHeadJson, render_openai_end, render_openai_totals

DONE = b"data: [DONE]\n\n"
MORE = b'"finish_reason":null'
"""End of a chunk that is not its choice's last."""


class ChunkEncoder:
    """Chunks as bytes. A piece of text costs one small dump: the rest of its chunk is made once for each choice."""

    def __init__(
        self, dialect: Dialect, head: OpenAiHeadJson, calls: Sequence[Call], began: float, *, with_usage: bool
    ) -> None:
        self._dialect, self._began = dialect, began
        self._head = {**head, "object": dialect.chunk_object}
        self._created = head["created"]
        self._with_usage = with_usage
        # OpenAI sends a null with every chunk once usage is requested, and its clients expect the field.
        self._after = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._calls = {call.index: call for call in calls}
        self._before: dict[tuple[int, int], bytes] = {}
        """Beginning of every chunk of a choice, by call and number; absent: the choice has not begun."""
        self._offsets: dict[tuple[int, int], int] = {}
        """Where a choice's next token begins in it; absent: it has no piece yet."""

    def encode_delta(self, piece: Delta) -> bytes:
        """Return the chunks of a piece."""
        call, key = self._calls[piece.call_index], (piece.call_index, piece.choice_index)
        if piece.choice_index and piece.choice_index >= (call.query.sampling.n or 1):
            return b""  # beyond the samples that were requested, and its place is the next call's
        offset = self._offsets.get(key, 0)
        fragment = self._dialect.render_piece(call, piece, offset)
        if fragment is None:
            return b""
        self._offsets[key] = offset + sum(len(token.token) for token in piece.logprobs) if piece.logprobs else offset
        return self._open(key, piece) + self._chunk(key, fragment, MORE)

    def encode_outcome(self, outcome: Outcome) -> bytes:
        """Return the last chunks of a call's choices."""
        frames = []
        for number, choice in enumerate(list_choices(outcome)):
            key = (outcome.call.index, number)
            if choice and key not in self._offsets:  # an answer that came whole
                frames.append(self.encode_delta(choice.to_delta(*key)))
            end = encode_json(render_openai_end(outcome, choice, number, self._created))
            frames += [self._open(key, None), self._chunk(key, self._dialect.close_choice(choice), end[1:-1])]
        return b"".join(frames)

    def encode_end(self, outcomes: Sequence[Outcome]) -> bytes:
        """Return the end of the stream."""
        if not self._with_usage:
            return DONE
        totals = render_openai_totals(outcomes, time.monotonic() - self._began)
        return b"".join((b"data: ", encode_json({**self._head, "choices": [], **totals}), b"\n\n", DONE))

    def _open(self, key: tuple[int, int], first: Delta | None) -> bytes:
        """Return the choice's opening chunk, once."""
        if key in self._before:
            return b""
        call = self._calls[key[0]]
        # A chunk belongs to one entry: it bears that label, not all of them joined.
        head = encode_json({**self._head, "model": call.target.label})
        place = encode_json(render_place(call, key[1]))
        self._before[key] = b"".join((b"data: ", head[:-1], b',"choices":[', place[:-1], b","))
        fragment = self._dialect.open_choice(first)
        return b"" if fragment is None else self._chunk(key, fragment, MORE)

    def _chunk(self, key: tuple[int, int], fragment: Fragment, rest: bytes) -> bytes:
        return b"".join((self._before[key], encode_json(fragment)[1:-1], b",", rest, b"}]", self._after))
