"""A streamed answer so far: its choices, and the deltas that the bytes being read add to them."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.json_text import JsonObject
from fanout.core.schema import Delta, TokenLogprob
from fanout.providers.mapping.choice_builder import MAX_CHOICES, ChoiceBuilder
from fanout.providers.mapping.completions import Finish
from fanout.providers.mapping.failures import Origin


class GrowingAnswer:
    """Choices of a streamed answer, each growing by what a reader adds.

    Args:
        origin: of the answer.
        call_index: the place of the call's first answer.
    """

    def __init__(self, origin: Origin, call_index: int) -> None:
        self._origin = origin
        self._call_index = call_index
        self._choices: dict[int, ChoiceBuilder] = {}
        self._deltas: list[Delta] = []
        """What the bytes that are being read have added."""
        self._held_bytes = 0

    @property
    def has_choices(self) -> bool:
        """True once anything of an answer has come."""
        return bool(self._choices)

    @property
    def partial(self) -> str | None:
        """The first choice's text so far."""
        return "".join(self._choices[min(self._choices)].text) or None if self._choices else None

    def _choice(self, index: int = 0) -> ChoiceBuilder:
        """Return the choice of this index, begun if need be."""
        choice = self._choices.get(index)
        if choice is None:
            # A garbled index must not make a thousand choices.
            if not 0 <= index < MAX_CHOICES:
                raise self._origin.answer_error("sent a chunk for a choice that was not requested", "unexpected_shape")
            choice = self._choices[index] = ChoiceBuilder()
        return choice

    def _add_text(self, text: str, index: int = 0) -> None:
        """Add text alone: nearly every delta."""
        self._choice(index).text.append(text)
        self._held_bytes += len(text)
        self._deltas.append(Delta(self._call_index, index, text))

    def _add(
        self,
        size: int,
        index: int = 0,
        *,
        text: str = "",
        reasoning: str = "",
        refusal: str = "",
        calls: Sequence[JsonObject] = (),
        logprobs: tuple[TokenLogprob, ...] | None = None,
        extra: JsonObject | None = None,
    ) -> None:
        """Add what an event of `size` bytes holds; no delta comes of it where that is nothing to see.

        Args:
            size: counts instead of the texts where there is more than them.
            index: of the choice.
            text: of the answer.
            reasoning: beside it.
            refusal: the model's words for not answering.
            calls: pieces of tool calls in OpenAI's shape, each with its `index`.
            logprobs: of the tokens in `text`.
            extra: content beside the text, see `Answer.extra`.
        """
        choice = self._choice(index)
        if not (text or reasoning or refusal or calls or logprobs or extra):
            return
        delta = Delta(self._call_index, index, text, reasoning or None, refusal or None, logprobs=logprobs or None)
        choice.text.append(text)
        choice.reasoning.append(reasoning)
        choice.refusal.append(refusal)
        if calls:
            delta.tool_calls = choice.add_calls({"tool_calls": calls})
        choice.logprobs.extend(logprobs or ())
        if extra:
            delta.extra = extra
            choice.extras.append(extra)
        # Log probabilities and images take far more than the text: what the event weighed is counted then.
        self._held_bytes += size if calls or logprobs or extra else len(text) + len(reasoning) + len(refusal)
        self._deltas.append(delta)

    def _end_calls(self) -> None:
        """Add what the tool calls still lack, the answer being whole."""
        # Not with the finish reason: some hosts send arguments in the same chunk, or behind it.
        for index, choice in self._choices.items():
            if pieces := choice.end_calls():
                self._deltas.append(Delta(self._call_index, index, "", tool_calls=pieces))

    def _finish(self, finish: Finish, index: int = 0) -> None:
        """Note the end of a choice."""
        # Also of a choice without any piece: an answer may be empty, but it has ended.
        self._choice(index).finish(*finish)
