"""Items of a streamed response while they grow, and the events of their growth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fanout.core.extras import merge_extras
from fanout.core.json_text import JsonObject
from fanout.core.schema import Delta, TokenLogprob
from fanout.rendering.openai.chat import RankedLogprobJson, render_chat_logprobs
from fanout.rendering.openai.output_items import (
    CALL_ITEMS,
    CUT_REASONS,
    ItemIds,
    OutputItemJson,
    OutputTextJson,
    get_call_kind,
    make_call,
    make_message,
    make_reasoning,
    make_refusal,
    make_text,
)
from fanout.rendering.openai.responses import ResponseChoiceJson

Event = tuple[str, JsonObject]
"""Type and further fields."""
CALL_EVENTS = {"function_call": "response.function_call_arguments", "custom_tool_call": "response.custom_tool_call_input"}
"""Type of an item → beginning of the names of its events."""


class OpenPart:
    """A part of an item that grows: text, a refusal, or reasoning.

    Args:
        name: the events' name for it.
        number: its position in the item.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []

    def render(self, extra: Mapping[str, object] | None = None) -> OutputTextJson:
        """Return the part as it is now."""
        text = "".join(self.pieces)
        if self.name == "refusal":
            return make_refusal(text)
        return (
            {"type": "reasoning_text", "text": text} if self.name == "reasoning_text" else make_text(text, extra, self.logprobs)
        )


class OpenItem:
    """An item that grows: of reasoning, a message, or a tool call."""

    def __init__(self, kind: str, item_id: str, index: int, place: int, call: Mapping[str, object] | None = None) -> None:
        self.kind, self.id, self.index, self.place = kind, item_id, index, place
        self.parts: list[OpenPart] = []
        self.extras: list[JsonObject] = []
        """Content beside the text, in pieces."""
        self.call: JsonObject = dict(call or {})
        self.names: list[str] = []
        """Of the tool, in pieces, as the next."""
        self.arguments: list[str] = []

    @property
    def extra(self) -> JsonObject:
        """Content beside the text, as it is now."""
        return merge_extras(self.extras)

    def render(self) -> OutputItemJson:
        """Return the item as it is now."""
        if self.kind in CALL_EVENTS:
            kind = get_call_kind(self.call)
            payload = {"name": "".join(self.names), CALL_ITEMS[kind][1]: "".join(self.arguments)}
            return make_call(self.id, self.index, {**self.call, kind: payload})
        if self.kind == "reasoning":
            return make_reasoning(self.id, self.index, "".join(self.parts[0].pieces) if self.parts else "")
        return make_message(self.id, self.index, [part.render(self.extra) for part in self.parts], self.extra)

    def grow(self, name: str, piece: str, logprobs: Sequence[TokenLogprob] | None = None) -> Iterator[Event]:
        """Yield the events of a piece of a part, which is begun if it is not the last one."""
        if not self.parts or self.parts[-1].name != name:
            if self.parts:
                yield from self._close_part()
            self.parts.append(OpenPart(name, len(self.parts)))
            if name != "reasoning_text":
                # Reasoning has no event of this name: OpenAI's clients fail on parts that they do not know.
                yield "response.content_part.added", {**self._locate_part(), "part": self.parts[-1].render()}
        part = self.parts[-1]
        part.pieces.append(piece)
        fields: JsonObject = {**self._locate_part(), "delta": piece}
        if name == "output_text":
            part.logprobs += logprobs or ()
            fields["logprobs"] = _rank(logprobs)
        yield f"response.{name}.delta", fields

    def call_more(self, piece: str) -> Iterator[Event]:
        """Yield the event of a piece of what a call gives its tool."""
        self.arguments.append(piece)
        # An empty piece is no news, and some providers begin every call with one.
        if piece:
            yield f"{CALL_EVENTS[self.kind]}.delta", {"item_id": self.id, "output_index": self.place, "delta": piece}

    def close(self) -> Iterator[Event]:
        """Yield the events of what ends before the item does."""
        if self.kind in CALL_EVENTS:
            field = CALL_ITEMS[get_call_kind(self.call)][1]
            fields = {"item_id": self.id, "output_index": self.place, field: "".join(self.arguments)}
            yield f"{CALL_EVENTS[self.kind]}.done", fields
        elif self.parts:
            yield from self._close_part()

    def _close_part(self) -> Iterator[Event]:
        part = self.parts[-1]
        text = "".join(part.pieces)
        place = self._locate_part()
        if part.name == "refusal":
            yield "response.refusal.done", {**place, "refusal": text}
        elif part.name == "reasoning_text":
            yield "response.reasoning_text.done", {**place, "text": text}
            return
        else:
            yield "response.output_text.done", {**place, "text": text, "logprobs": _rank(part.logprobs)}
        yield "response.content_part.done", {**place, "part": part.render(self.extra)}

    def _locate_part(self) -> JsonObject:
        return {"item_id": self.id, "output_index": self.place, "content_index": self.parts[-1].number}


class OpenAnswer:
    """The items of one answer while it arrives; those of all answers share one `output`."""

    def __init__(self, response_id: str, index: int, output: list[OutputItemJson]) -> None:
        self._ids, self._index, self._output = ItemIds(response_id, index), index, output
        self._open: OpenItem | None = None
        self._calls: dict[object, OpenItem] = {}

    def add(self, piece: Delta) -> Iterator[Event]:
        """Yield the events of a piece."""
        if piece.reasoning:
            yield from self._move_to("reasoning", "rs")
            yield from self._current.grow("reasoning_text", piece.reasoning)
        if piece.text or piece.logprobs:
            yield from self._move_to("message", "msg")
            yield from self._current.grow("output_text", piece.text, piece.logprobs)
        if piece.refusal:
            yield from self._move_to("message", "msg")
            yield from self._current.grow("refusal", piece.refusal)
        if piece.extra:
            yield from self._move_to("message", "msg")
            self._current.extras.append(piece.extra)
        for call in piece.tool_calls:
            yield from self._add_call(call)

    def close(self, finish_reason: str | None, choice: ResponseChoiceJson) -> Iterator[Event]:
        """Yield the events of the answer's end."""
        if not self._open and not self._calls and finish_reason not in ("error", "timeout"):
            yield from self._move_to("message", "msg")
            yield from self._current.grow("output_text", "")  # an empty answer is an answer
        items = [*self._calls.values(), *([self._open] if self._open else [])]
        for item in items:
            is_last = item is items[-1]
            # Only the last item was cut: those before it had ended.
            is_cut = is_last and (finish_reason in CUT_REASONS or finish_reason in ("error", "timeout"))
            yield from self._close_item(item, "incomplete" if is_cut else "completed", choice if is_last else None)

    def _add_call(self, call: Mapping[str, object]) -> Iterator[Event]:
        if self._open:
            yield from self._close_item(self._open)
            self._open = None
        # By index: only the first piece of a call has its id. Hosts that send calls whole may leave the index out.
        key, kind = call.get("index", call.get("id")), get_call_kind(call)
        item_type, field = CALL_ITEMS[kind]
        payload = call.get(kind)
        fields = payload if isinstance(payload, dict) else {}
        item = self._calls.get(key)
        is_new = item is None
        if item is None:
            item = self._calls[key] = OpenItem(item_type, self._ids.make("fc"), self._index, len(self._output), call)
        item.names.append(str(fields.get("name") or ""))
        if is_new:
            yield from self._announce(item)
        yield from item.call_more(str(fields.get(field) or ""))

    @property
    def _current(self) -> OpenItem:
        assert self._open is not None, "an item has been begun"
        return self._open

    def _move_to(self, kind: str, prefix: str) -> Iterator[Event]:
        """Begin an item of a kind, unless one is open."""
        if self._open and self._open.kind == kind:
            return
        if self._open:
            yield from self._close_item(self._open)
        self._open = OpenItem(kind, self._ids.make(prefix), self._index, len(self._output))
        yield from self._announce(self._open)

    def _announce(self, item: OpenItem) -> Iterator[Event]:
        # Its place is taken at once: items of other answers that begin meanwhile come behind it.
        rendered = {**item.render(), "status": "in_progress"}
        self._output.append(rendered)  # type: ignore[arg-type]
        yield "response.output_item.added", {"output_index": item.place, "item": rendered}

    def _close_item(
        self, item: OpenItem, status: str = "completed", choice: ResponseChoiceJson | None = None
    ) -> Iterator[Event]:
        yield from item.close()
        rendered = {**item.render(), "status": status}
        self._output[item.place] = rendered  # type: ignore[call-overload]
        end = {"choice": choice} if choice else {}
        yield "response.output_item.done", {"output_index": item.place, "item": rendered, **end}


def _rank(logprobs: Sequence[TokenLogprob] | None) -> Sequence[RankedLogprobJson]:
    return render_chat_logprobs(logprobs)["content"] or [] if logprobs else []
