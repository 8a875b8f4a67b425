"""Bounds on the work of the embedded models, which takes the time of this process: for a call, a request and the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from time import perf_counter
from weakref import WeakKeyDictionary

from fanout.core.errors import ProviderError
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Delta, Failure, Query, RequestScope
from fanout.core.threads import run_in_thread

DEFAULT_MAX_TOKENS = 128
MAX_PROMPT_CHARACTERS = 131_072
"""Of a prompt, a suffix, or all texts to embed; a token id counts as four."""
MAX_STOP_CHARACTERS = 16_384
"""Of all stop sequences together, which are prepared in one go."""
MAX_REQUEST_STEPS = 500_000
"""Steps of all calls of a request. One writes a token with plain parameters, in some 30 µs on a quiet core."""
COMPARED_PER_STEP = 20
"""Tokens that a bias, a penalty or `top_k` adds to each written one, for the time of one more step."""
MAX_INLINE_COMPARED = 100
"""Above it one token may take longer than the event loop can wait, so that it is written in a thread."""
MAX_SHARE = 0.5
"""Share of one core's time that all calls of the process may take for long."""
BURST_S = 1.0
"""Time that they may take at once before that."""
MAX_TURN_S = 0.0005
"""Time for which one call may keep the event loop before another gets its turn."""
Piece = Delta | Completion


class Effort:
    """The work of all calls of a process: one takes its turn at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._spent: WeakKeyDictionary[RequestScope, int] = WeakKeyDictionary()
        self._credit_s, self._counted_at = BURST_S, time.monotonic()

    def begin(self, call: Call, vocabulary: int) -> bool:
        """Count the work of a call to that of its request. Return whether single steps of it take long.

        Raises:
            ProviderError: the call, or its request as a whole, is too much work.
        """
        characters = check_sizes(call)
        compared = _count_comparisons(call, characters, vocabulary)
        steps = self._spent.get(call.scope, 0) + _count_steps(call, characters, compared)
        if steps > MAX_REQUEST_STEPS:
            sentence = (
                f"the embedded models write at most {MAX_REQUEST_STEPS:,} tokens for one request (calls × `n` or `best_of` × "
                f"`max_tokens`, four times as many with `suffix`, and more with `top_k`, biases, penalties or many stop "
                f"sequences): with this call they would write about {steps:,}"
            )
            raise ProviderError(Failure("bad_request", sentence, code="too_much_work", param="max_tokens"))
        # Weak keys: a request that is over takes its count with it.
        self._spent[call.scope] = steps
        return (
            call.query.task == "embed"  # each is one step, however long
            or compared > MAX_INLINE_COMPARED
            or len(call.fitted.sent.get("stop", ())) > 8
            or measure_query(call.query).whole > 16_384
        )

    async def take_turn(self, work: Iterator[Piece | None], *, is_long: bool) -> list[Piece]:
        """Return what the next half millisecond of work yields, once it is this call's turn; a thread does `is_long` work."""
        # One call at a time: if a thousand took their turns in the same pass, the loop would stand still for half a second.
        async with self._turn:
            began = perf_counter()
            pieces = await run_in_thread("embedded", _work, work) if is_long else _work(work)
            # Within the lock, else the next call takes its turn in the same pass.
            await asyncio.sleep(self.count_pause_s(perf_counter() - began, time.monotonic()))
        return pieces

    def count_pause_s(self, worked_s: float, now: float) -> float:
        """Return the pause that is due once so much work has been done, until when the process has its share again."""
        earned_s = (now - self._counted_at) * MAX_SHARE
        self._credit_s, self._counted_at = min(BURST_S, self._credit_s + earned_s) - worked_s, now
        return max(0.0, -self._credit_s / MAX_SHARE)


def _work(work: Iterator[Piece | None]) -> list[Piece]:
    until, done = perf_counter() + MAX_TURN_S, []
    for piece in work:
        if piece is not None:
            done.append(piece)
        # Also after steps that yield nothing, such as those that read the prompt.
        if perf_counter() >= until:
            break
    return done


def check_sizes(call: Call) -> int:
    """Return the length of a call's prompt; raise `ProviderError` if it, the suffix or the stop sequences are too long."""
    sent = call.fitted.sent
    characters = measure_query(call.query).text
    sizes = {
        _name_question(call.query): (characters, MAX_PROMPT_CHARACTERS),
        "suffix": (len(sent.get("suffix", "")), MAX_PROMPT_CHARACTERS),
        "stop": (sum(map(len, sent.get("stop", ()))), MAX_STOP_CHARACTERS),
    }
    for name, (size, most) in sizes.items():
        if size > most:
            code = "context_length_exceeded" if most == MAX_PROMPT_CHARACTERS else None
            sentence = f"`{name}` has {size:,} characters: the embedded models take at most {most:,}"
            raise ProviderError(Failure("bad_request", sentence, code=code, param=name))
    return characters


def _name_question(query: Query) -> str:
    return "input" if query.task == "embed" else "prompt" if query.messages is None else "messages"


def _count_comparisons(call: Call, characters: int, vocabulary: int) -> int:
    """Return the number of tokens that are looked at for each written one."""
    sent = call.fitted.sent
    top_k: int = sent.get("top_k", 0)
    repeated = min(characters, vocabulary) if sent.get("repetition_penalty", 1) != 1 else 0
    return len(sent.get("logit_bias", ())) + repeated + (top_k if 0 < top_k < vocabulary else 0)


def _count_steps(call: Call, characters: int, compared: int) -> int:
    if call.query.task != "answer":
        return characters // 256 + 1
    sent = call.fitted.sent
    answers = max(sent.get("n", 1), sent.get("best_of", 1)) * (4 if sent.get("suffix") else 1)
    weight = 1 + (compared + 4 * len(sent.get("stop", ()))) // COMPARED_PER_STEP
    scored = characters // 4 if sent.get("echo") and "logprobs" in sent else 0
    return int(answers * sent.get("max_tokens", DEFAULT_MAX_TOKENS) * weight + characters // 256 + scored)
