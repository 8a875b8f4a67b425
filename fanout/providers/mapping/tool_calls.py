"""Tool calls in OpenAI's shape, whole or in the pieces of a stream, which hosts number and cut in their own ways.

A piece belongs to the call of its `index`; without one, to the call of its `id`; without either, to the last call. Where that
call has another id, or an end, a piece with a name begins a new call instead: some hosts give all calls the index 0 (Gemini's
OpenAI path), or a call a new id with every piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fanout.core.json_text import JsonObject, dump, parse
from fanout.providers.mapping.json_fields import as_object, as_objects, as_text

NO_ARGUMENTS = "{}"
"""What a call of a function without arguments has as text."""
MAX_CHECKED_CHARACTERS = 2**16
"""Longer arguments are not parsed to see whether they are complete."""
PAYLOADS: Mapping[str, str] = {"function": "arguments", "custom": "input"}
"""Kind of a call → the field of its input. Source: https://platform.openai.com/docs/api-reference/chat/object"""
NO_ARGUMENTS = "{}"
"""Text of the arguments of a function that has none."""
KNOWN = frozenset({"index", "id", "type", *PAYLOADS})
FLAT = KNOWN | {"name", "arguments"}
"""Fields that are read where a host leaves out the inner object."""


@dataclass(slots=True)
class _Piece:
    """A call, or a part of one, as its host sent it."""

    id: str
    kind: str
    name: str
    arguments: str
    others: JsonObject

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> _Piece:
        kind = "custom" if isinstance(raw.get("custom"), dict) else "function"
        # The fields of a call may stand in it directly, as in other formats.
        payload, known, call_id = raw.get(kind), KNOWN, raw.get("id")
        if not isinstance(payload, dict):
            payload, known = raw, FLAT
        return cls(
            str(call_id) if isinstance(call_id, str | int) else "",
            kind,
            as_text(payload.get("name")),
            to_arguments(payload.get(PAYLOADS[kind])),
            {name: value for name, value in raw.items() if name not in known and value},
        )

    @property
    def is_empty(self) -> bool:
        """True where nothing is in it: hosts written in Go send every field."""
        return not (self.name or self.arguments or self.others)

    def render(self, call_id: str) -> JsonObject:
        """Return the call that this piece is, or begins."""
        payload = {"name": self.name, PAYLOADS[self.kind]: self.arguments}
        return {"id": call_id, "type": self.kind, self.kind: payload, **self.others}


@dataclass(slots=True)
class _Call:
    """A call in the making."""

    place: int
    first: _Piece
    id: str
    index: int | None
    arguments: list[str] = field(default_factory=list)
    length: int = 0

    def extend(self, arguments: str) -> None:
        if arguments:
            self.arguments.append(arguments)
            self.length += len(arguments)

    def is_repeated_by(self, arguments: str) -> bool:
        """Return whether these are all of its arguments once more, as some hosts end a call: no JSON goes on with itself."""
        return len(arguments) == self.length and self.is_complete() and arguments == "".join(self.arguments)

    def is_complete(self) -> bool:
        # Parsed again with each piece, long arguments would take the square of their length.
        if self.length > MAX_CHECKED_CHARACTERS:
            return False
        text = "".join(self.arguments).rstrip()
        # Nearly every piece ends here, before anything is parsed.
        if not text.endswith("}"):
            return False
        try:
            return isinstance(parse(text.encode(errors="replace")), dict)
        except ValueError:
            return False


class ToolCallBuilder:
    """The tool calls of one streamed answer; the rule by which its pieces belong together is the module's."""

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(self, raw: JsonObject) -> JsonObject | None:
        """Add a piece; return it with the `index` of its call here, `None` where nothing is new in it.

        Id, type and name stand in a call's first piece alone: clients put the strings of all pieces together.
        """
        piece, index = _Piece.from_json(raw), raw.get("index")
        index = index if type(index) is int else None
        call = self._find(index, piece.id)
        if call is None or self._is_next(call, index, piece):
            return None if piece.is_empty and not piece.id else self._begin(index, piece)
        if piece.id:
            # A host may change the id within a call: pieces under either belong to it.
            self._by_id[piece.id] = call
        return self._extend(call, piece)

    def end(self) -> Iterator[JsonObject]:
        """Yield the last pieces of ended calls: no client can parse an empty text, as some hosts send for no arguments."""
        for call in self._calls:
            if call.first.kind == "function" and not call.length:
                call.extend(NO_ARGUMENTS)
                yield {"index": call.place, "function": {"arguments": NO_ARGUMENTS}}

    def build(self) -> tuple[JsonObject, ...]:
        """Return the calls as they are now."""
        for call in self._calls:
            call.first.arguments = "".join(call.arguments)
        return tuple(call.first.render(call.id) for call in self._calls)

    def _find(self, index: int | None, call_id: str) -> _Call | None:
        call = self._by_id.get(call_id)
        # Without an index the order is all there is: the last call goes on.
        if index is None:
            return call or (self._calls[-1] if self._calls else None)
        return call if call and call.index == index else self._by_index.get(index)

    def _is_next(self, call: _Call, index: int | None, piece: _Piece) -> bool:
        """Return whether a piece begins a call behind `call` instead of continuing it."""
        if not piece.name or not call.first.name or (piece.id and self._by_id.get(piece.id) is call):
            return False
        has_other_id = bool(piece.id) and call.first.id not in ("", piece.id)
        is_repeated = piece.name == call.first.name
        if not is_repeated and (index is None or has_other_id):
            return True
        # Some hosts repeat the name with every piece.
        if has_other_id and not call.arguments:
            return True
        has_more = has_other_id or not is_repeated or bool(piece.arguments.strip())
        return has_more and call.is_complete()

    def _begin(self, index: int | None, piece: _Piece) -> JsonObject:
        place = len(self._calls)
        call = _Call(place, piece, piece.id or make_call_id(place), index)
        call.extend(piece.arguments)
        self._calls.append(call)
        self._by_id[call.id] = call
        if index is not None:
            self._by_index[index] = call
        return {"index": place, **piece.render(call.id)}

    def _extend(self, call: _Call, piece: _Piece) -> JsonObject | None:
        payload = {}
        # A name may come in pieces, or with each of them; behind arguments it is whole.
        if not call.arguments and (news := piece.name.removeprefix(call.first.name)):
            payload["name"] = news
            call.first.name += news
        if piece.arguments and not call.is_repeated_by(piece.arguments):
            call.extend(piece.arguments)
            payload[PAYLOADS[call.first.kind]] = piece.arguments
        call.first.others.update(piece.others)
        if not (payload or piece.others):
            return None
        return {"index": call.place, **({call.first.kind: payload} if payload else {}), **piece.others}


def list_pieces(message: Mapping[str, Any]) -> list[JsonObject]:
    """Return the tool calls of a message or a delta; `function_call`, which they replaced, is one of them."""
    calls = message.get("tool_calls")
    if pieces := as_objects([calls] if isinstance(calls, dict) else calls):
        return pieces
    return [{"function": call}] if (call := as_object(message.get("function_call"))) else []


def parse_calls(message: Mapping[str, Any]) -> tuple[JsonObject, ...]:
    """Return the tool calls of a whole message. One without a name, arguments or anything else is none."""
    pieces = [piece for raw in list_pieces(message) if not (piece := _Piece.from_json(raw)).is_empty]
    for piece in pieces:
        if piece.kind == "function":
            piece.arguments = piece.arguments or NO_ARGUMENTS
    return tuple(piece.render(piece.id or make_call_id(place)) for place, piece in enumerate(pieces))


def make_call_id(place: int) -> str:
    """Return an id for a call that has none: its caller needs one to answer it."""
    return f"call_{place}"


def to_arguments(value: object) -> str:
    """Return arguments as the text that they are in OpenAI's shape; some hosts send the object itself."""
    return value if isinstance(value, str) else "" if value is None else dump(value).decode()
