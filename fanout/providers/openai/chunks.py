"""Answers in OpenAI's format, whole or in chunks."""

from __future__ import annotations

from fanout.core.json_text import JsonObject
from fanout.core.schema import Choice, Completion, Delta
from fanout.providers.mapping.answer_reader import AnswerReader
from fanout.providers.mapping.choice_builder import ChoiceBuilder
from fanout.providers.mapping.completions import build_completion, read_index
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_objects
from fanout.providers.mapping.openai_answers import (
    find_message,
    parse_choice,
    parse_finish,
    parse_logprobs,
    parse_refusal,
    parse_texts,
)
from fanout.providers.mapping.openai_usage import parse_usage
from fanout.providers.mapping.other_content import BESIDE_CHOICES, list_news, pick_extras
from fanout.providers.openai.whole_messages import WholeMessages


class ChunkReader(AnswerReader):
    """A streamed answer: chunks, of which every one that has a meaning is taken."""

    def __init__(self, origin: Origin, call_index: int, max_bytes: int) -> None:
        super().__init__(origin, call_index, max_bytes)
        self._head: JsonObject = {}
        self._usage: object = None
        self._beside: JsonObject = {}
        """Content that has come beside the choices."""
        self._wholes: dict[int, WholeMessages] = {}
        """By the index of their choice."""

    @staticmethod
    def parse_answer(origin: Origin, body: JsonObject) -> Completion:
        if body.get("error") or body.get("object") == "error":  # `is_error`, without its call
            raise ChunkReader.parse_error(origin, body)
        raw_choices = as_objects(body.get("choices"))
        if len(raw_choices) > 1:
            raw_choices.sort(key=read_index)
        if raw_choices and not BESIDE_CHOICES.isdisjoint(body):
            raw_choices[0] = _add_beside(raw_choices[0], body)
        choices = tuple([parse_choice(origin, choice) for choice in raw_choices])
        return build_completion(origin, body, choices, parse_usage(body.get("usage"), body.get("service_tier")))

    def _read_event(self, event: JsonObject, size: int) -> None:
        if event.get("error") or event.get("object") == "error":  # `is_error`, without its call: every chunk passes here
            raise self.parse_error(self._origin, event)
        if not self._head.get("model"):  # Azure's first chunk has no model
            self._head = event
        # Empty in the chunk with the usage, and in Azure's first.
        choices = event.get("choices")
        if choices and isinstance(choices, list):
            for place, choice in enumerate(choices):
                if isinstance(choice, dict):
                    self._read_choice(choice, place, size)
        if not BESIDE_CHOICES.isdisjoint(event):
            self._read_beside(event, size)
        if usage := event.get("usage"):  # the last chunk has it, or each one so far; `null` before
            self._usage = usage

    def _read_choice(self, choice: JsonObject, place: int, size: int) -> None:
        index = choice.get("index")
        if type(index) is not int:  # some hosts leave the index out
            index = place
        builder = self._choices.get(index) or self._choice(index)
        message = choice.get("delta")
        if "message" in choice or ("text" in choice and message is not None) or type(message) is str:  # hardly ever
            message = self._find_message(builder, index, choice)
        text = message.get("content") if type(message) is dict else choice.get("text")
        logprobs = choice.get("logprobs")
        if choice.get("finish_reason") or choice.get("error"):
            builder.finish(*parse_finish(self._origin, choice))
            self._usage = choice.get("usage") or self._usage  # Moonshot's stands here
        if type(text) is not str or logprobs or (type(message) is dict and len(message) > 1):
            self._add_fields(builder, index, message if isinstance(message, dict) else {"content": text}, logprobs, size)
        elif text:
            builder.text.append(text)
            self._held_bytes += len(text)
            self._deltas.append(Delta(self._call_index, index, text))

    def _find_message(self, builder: ChoiceBuilder, index: int, choice: JsonObject) -> object:
        """Return what stands for a delta, which may itself be there, but empty."""
        # Perplexity sends both: a message of all so far, and a delta of what is new in it.
        message = find_message(choice.get("delta"), choice.get("text"))
        if isinstance(message, dict) and any(value for name, value in message.items() if name != "role"):
            return message
        whole = find_message(choice.get("message"), choice.get("text"))
        if not isinstance(whole, dict):
            return message
        if index not in self._wholes:
            self._wholes[index] = WholeMessages(builder)
        return self._wholes[index].find_news(whole)

    def _add_fields(self, builder: ChoiceBuilder, index: int, message: JsonObject, logprobs: object, size: int) -> None:
        """Add what a delta holds beside text, or instead of it: often only a role, of which no delta comes."""
        text, reasoning = parse_texts(message)
        delta = Delta(self._call_index, index, text, reasoning, parse_refusal(message))
        if message.get("tool_calls") or message.get("function_call"):
            delta.tool_calls = builder.add_calls(message)
        delta.logprobs = parse_logprobs(logprobs) or None
        delta.extra = pick_extras(message) or None
        builder.text.append(text)
        builder.reasoning.append(reasoning or "")
        builder.refusal.append(delta.refusal or "")
        builder.logprobs.extend(delta.logprobs or ())
        if delta.extra:
            builder.extras.append(delta.extra)
        has_fields = delta.tool_calls or delta.logprobs or delta.extra
        self._held_bytes += size if has_fields else len(text) + len(reasoning or "") + len(delta.refusal or "")
        if text or reasoning or delta.refusal or has_fields:
            self._deltas.append(delta)

    def _read_beside(self, event: JsonObject, size: int) -> None:
        news: JsonObject = {}
        for name in filter(BESIDE_CHOICES.__contains__, event):
            if event[name] and (new := list_news(self._beside.get(name), event[name])):
                news[name], self._beside[name] = new, event[name]
        if news:
            self._add(size, min(self._choices, default=0), extra=news)

    def _complete(self, choices: tuple[Choice, ...]) -> Completion:
        return build_completion(self._origin, self._head, choices, parse_usage(self._usage, self._head.get("service_tier")))


def _add_beside(choice: JsonObject, body: JsonObject) -> JsonObject:
    """Return the first choice of an answer with the content that stands beside the choices, in its message."""
    beside = {name: value for name, value in body.items() if name in BESIDE_CHOICES and value}
    message = choice.get("message")
    return {**choice, "message": {**beside, **(message if isinstance(message, dict) else {"content": choice.get("text")})}}
