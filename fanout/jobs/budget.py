"""Budget of a job: the most that each call can cost is set aside before it is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic_core import to_json

from fanout.core.messages import ImagePart, Message
from fanout.core.schema import Call, Completion, Failure, Query
from fanout.core.usage import Cost, Usage
from fanout.jobs.key_gate import KeyGate

MESSAGE_TOKENS = 16
"""Tokens that a provider may put around a message."""
IMAGE_TOKENS = 2_000
UNSEEN_ANSWER_TOKENS = 4_096
"""Longest answer expected where the call sets no length, until a longer one is seen."""
ROUNDING = 1e-9
"""Part of a call's price: sums of floats may end a little off."""
LENGTH_MARGIN = 2
"""Multiple of the longest answer so far that the next may reach, where the call sets no length."""

Price = Callable[[Call, Usage], Cost | None]


@dataclass(slots=True)
class Budget:
    """Money in US dollars. Without a `limit_usd` everything may be sent.

    A token is at least one byte of text, so the input is never longer than its bytes; where a call sets no `max_tokens`,
    the length of its answer is a guess.
    """

    price: Price
    limit_usd: float | None = None
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    """Set aside for calls in flight: without it many calls at once would overspend together."""
    gate: KeyGate | None = None
    """The budget of the key that made the job, which all calls of that key share."""
    longest_tokens: int = UNSEEN_ANSWER_TOKENS // LENGTH_MARGIN
    on_refusal: Callable[[float], None] | None = None
    """Is called with the price of a call that the limit does not pay for."""
    on_use: Callable[[], None] | None = None
    """Is called when money was set aside."""
    open_calls: int = 0
    """Calls that money is set aside for."""

    @property
    def unused_usd(self) -> float:
        """What may still be set aside; for a job without a limit 0."""
        return max((self.limit_usd or 0.0) - self.spent_usd - self.reserved_usd, 0.0)

    def drop_unused(self, keep_usd: float = 0.0) -> None:
        """Lower the limit to what is used, and a little more if some is to be kept."""
        self.limit_usd = min(self.limit_usd or 0.0, self.spent_usd + self.reserved_usd + keep_usd)

    def reserve(self, call: Call, ratio: float = 1.0) -> float | None:
        """Set aside the most that a call can cost, and return it; `None`: it is more than is left, or not known.

        With a `ratio` that is the part of its ordinary price.
        """
        if call.refusal or (self.limit_usd is None and self.gate is None):
            return 0.0
        if self.limit_usd is None and self.gate and not self.gate.has_budget:
            return 0.0 if self.gate.reserve(0.0) else None
        cost = self.price(call, max_usage(call.query, self.longest_tokens * LENGTH_MARGIN))
        if cost is None:
            return None
        usd, limit_usd = cost.usd * ratio, math.inf if self.limit_usd is None else self.limit_usd
        if self.spent_usd + self.reserved_usd + usd * (1 - ROUNDING) > limit_usd:
            if self.on_refusal:
                self.on_refusal(usd)
            return None
        if self.gate and not self.gate.reserve(usd):
            return None
        self.reserved_usd += usd
        self.open_calls += usd > 0
        if self.on_use:
            self.on_use()
        return usd

    def adopt(self, reserved_usd: Iterable[float]) -> None:
        """Count money that an earlier run has set aside for calls which are still under way."""
        for usd in reserved_usd:
            self.reserved_usd += usd
            self.open_calls += usd > 0

    def is_price_known(self, call: Call) -> bool:
        """Return whether the price of a call is known."""
        return call.refusal is not None or self.price(call, Usage(1, 1)) is not None

    def settle(self, reserved_usd: float, result: Completion | Failure | None, cost: Cost | None = None) -> None:
        """Release the money set aside for a call, and count its real cost: all of it, where an answer has no known cost."""
        self.open_calls -= reserved_usd > 0
        # Sums of floats end a little off; what looks as if it were under way would keep the job from ending.
        self.reserved_usd = max(self.reserved_usd - reserved_usd, 0.0) if self.open_calls else 0.0
        if not isinstance(result, Completion):  # it reports no usage that could be priced
            return
        self.spent_usd += reserved_usd if cost is None else cost.usd
        self.longest_tokens = max(self.longest_tokens, (result.usage and result.usage.output_tokens) or 0)


def max_usage(query: Query, unset_tokens: int = UNSEEN_ANSWER_TOKENS) -> Usage:
    """Return the most that a call can use; where it sets no length, its answer is taken to have `unset_tokens`."""
    sampling = query.sampling
    length = unset_tokens if sampling.max_tokens is None else sampling.max_tokens
    output = length * sampling.generated_answers if query.task == "answer" else 0
    return Usage(input_tokens=max_input_tokens(query), output_tokens=output)


def max_input_tokens(query: Query) -> int:
    """Return the most tokens that the input of a call can have: no tokenizer makes more of a text than it has bytes."""
    beside = len(to_json(query.passthrough, fallback=str)) if query.passthrough else 0  # the tools, among others
    if query.inputs is not None:
        sizes = (len(one.encode(errors="replace")) if isinstance(one, str) else len(one) for one in query.inputs)
        return sum(sizes) + MESSAGE_TOKENS * len(query.inputs) + beside
    if query.messages is None:
        return len((query.prompt or "").encode(errors="replace")) + len(query.prompt_tokens or ()) + MESSAGE_TOKENS + beside
    return sum(map(_message_tokens, query.messages)) + beside


def _message_tokens(message: Message) -> int:
    parts = message.content if isinstance(message.content, tuple) else (message.content,)
    return MESSAGE_TOKENS + sum(
        IMAGE_TOKENS if isinstance(part, ImagePart) else len(str(getattr(part, "text", part) or "").encode(errors="replace"))
        for part in parts
    )
