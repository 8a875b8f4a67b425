"""What a job may cost: the most that each call can cost is set aside before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import to_json

from fanout.core.messages import ImagePart, Message
from fanout.core.schema import Call, Completion, Failure, Query
from fanout.core.usage import Cost, Usage

MESSAGE_TOKENS = 16
"""What a provider may put around a message."""
IMAGE_TOKENS = 2_000
UNSEEN_TOKENS = 4_096
"""The longest answer that is expected where the call sets no length and no longer one has been seen."""
LONGER = 2
"""How many times as long as the longest answer so far the next may be, where the call sets no length."""

Price = Callable[[Call, Usage], Cost | None]


@dataclass(slots=True)
class Budget:
    """Money, in US dollars. With no `most_usd` everything may be sent.

    A token is at least one byte of text, so the input is never longer than its bytes; where a call sets no `max_tokens`,
    the length of its answer is a guess.
    """

    price: Price
    most_usd: float | None = None
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    longest: int = UNSEEN_TOKENS // LONGER
    """The longest answer so far, in tokens."""

    def reserve(self, call: Call) -> float | None:
        """Sets aside the most that a call can cost; `None`: that is more than is left, or is not known."""
        if self.most_usd is None or call.refusal:
            return 0.0
        cost = self.price(call, self._most(call.query))
        if cost is None or self.spent_usd + self.reserved_usd + cost.usd > self.most_usd:
            return None
        self.reserved_usd += cost.usd
        return cost.usd

    def is_price_known(self, call: Call) -> bool:
        """Whether the price of a call is known."""
        return call.refusal is not None or self.price(call, Usage(1, 1)) is not None

    def settle(self, reserved_usd: float, result: Completion | Failure | None, cost: Cost | None = None) -> None:
        """Takes back what was set aside for a call, and counts what it did cost: all of it, where an answer does not say."""
        self.reserved_usd = max(self.reserved_usd - reserved_usd, 0.0)
        if not isinstance(result, Completion):
            return
        self.spent_usd += reserved_usd if cost is None else cost.usd
        self.longest = max(self.longest, (result.usage and result.usage.output_tokens) or 0)

    def _most(self, query: Query) -> Usage:
        sampling = query.sampling
        length = self.longest * LONGER if sampling.max_tokens is None else sampling.max_tokens
        return Usage(input_tokens=max_input_tokens(query), output_tokens=length * max(sampling.n or 1, sampling.best_of or 1))


def max_input_tokens(query: Query) -> int:
    """No tokenizer makes more tokens of a text than it has bytes."""
    beside = len(to_json(query.passthrough, fallback=str)) if query.passthrough else 0  # the tools, among others
    if query.messages is None:
        return len((query.prompt or "").encode(errors="replace")) + len(query.prompt_tokens or ()) + MESSAGE_TOKENS + beside
    return sum(map(_message_tokens, query.messages)) + beside


def _message_tokens(message: Message) -> int:
    parts = message.content if isinstance(message.content, tuple) else (message.content,)
    return MESSAGE_TOKENS + sum(
        IMAGE_TOKENS if isinstance(part, ImagePart) else len(str(getattr(part, "text", part) or "").encode(errors="replace"))
        for part in parts
    )
