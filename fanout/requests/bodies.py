"""Parts of request bodies that the dialects share, and their validation, which reports all faults at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from fanout.core.errors import Fault, RequestError
from fanout.core.faults import to_faults, to_json_path
from fanout.core.json_text import JsonObject
from fanout.core.json_values import TOO_LARGE, find_infinite
from fanout.core.long_json import parse_in_steps
from fanout.core.long_lists import IN_STEPS, MAX_FAULTS, BoundedObject, list_faults
from fanout.core.messages import Message, MessageBody
from fanout.core.sampling import SAMPLING_NAMES, at_most
from fanout.core.sampling_fields import SamplingFields
from fanout.core.schema import Call
from fanout.dispatch.entries import Entry, FusionEntry
from fanout.dispatch.fusion_plan import count_entries
from fanout.requests.fusions import MAX_NAME_CHARS, MEMBERS_SCHEMA, FusibleEntry, FusionFields, MemberCount, ToMemberList

MAX_ENTRIES = 64
"""Limit of entries in `model`."""
MAX_CACHED_ENTRIES = 1024
"""Entries that are a model's name alone, kept for the next request: callers choose the names."""
Body = TypeVar("Body", bound=BaseModel)


def to_entry_list(entry: type[BaseModel]) -> BeforeValidator:
    """Return the validator that turns a name, an object, or a list of either into a list of entries."""

    # Cached: the same few names stand in nearly every request, and validating each anew took a fifth of the work on a body.
    @lru_cache(maxsize=MAX_CACHED_ENTRIES)
    def make_plain_entry(name: str) -> object:
        return entry.model_validate({"model": name})

    def convert(value: object) -> object:
        entries = value if isinstance(value, list) else [value]
        if not 1 <= len(entries) <= MAX_ENTRIES:
            raise ValueError(f"{len(entries)} entries are not allowed: 1 to {MAX_ENTRIES}")
        return [
            one if not isinstance(one, str) else make_plain_entry(one) if 1 <= len(one) <= MAX_NAME_CHARS else {"model": one}
            for one in entries
        ]

    return BeforeValidator(convert)


@lru_cache(maxsize=MAX_CACHED_ENTRIES)
def _make_plain_entry(name: str) -> Entry:
    return Entry(name)


def _parse_return_when(value: object) -> int | None:
    """Turn `all` into `None` and `first` into 1."""
    if value == "all" or value is None:
        return None
    if value == "first":
        return 1
    # `True` is an `int` in Python, so JSON's `true` would be read as 1.
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    shown = f"`{value[:80]}`" if isinstance(value, str) else str(value) if type(value) is int else "this"
    raise ValueError(f"{shown} is not allowed: `all`, `first`, or the number of entries to wait for")


class ObjectBody(BoundedObject):
    """A body that must be a JSON object of known fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SamplingBody(
    SamplingFields,
    takes=("max_tokens", "max_new_tokens", *SAMPLING_NAMES),
    spellings={"max_new_tokens": "max_tokens"},
):
    """The sampling parameters of `/v1/completion`; `null` means absent. Each sample is a call of its own, sent seed + k."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # Relations between fields are checked by field validators, in the order of the fields. A validator of the whole model
    # would be skipped by pydantic as soon as any field is wrong, and its faults would be missing from the answer.

    @field_validator("best_of")
    @classmethod
    def _check_best_of(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value < (info.data.get("n") or 1):
            raise ValueError(f"{value} is not allowed: must not be below `n`, which is {info.data['n']}")
        return value


class EntryFusion(FusionFields):
    """One answer made of the answers of several models."""

    of: Annotated[list[EntryBody], IN_STEPS, ToMemberList, MemberCount, MEMBERS_SCHEMA]
    """Members: 2 to 16 models with sets written out. An object gives one parameters of its own."""


class EntryBody(SamplingBody, FusibleEntry):
    """One entry of `model` written out: a model with parameters of its own, or a fusion, whose own call they are for."""

    fusion: EntryFusion | None = None
    """One answer made of the answers of several models; instead of `model`."""
    messages: Annotated[list[MessageBody], IN_STEPS] | None = None
    """Earlier messages for this entry alone, instead of the request's; `null`: none."""

    def to_entry(self) -> Entry:
        """Return the entry as `plan` takes it."""
        if self.model and self.model_fields_set == {"model"}:
            return _make_plain_entry(self.model)
        earlier = to_messages(self.messages) if "messages" in self.model_fields_set else None
        entry = Entry(self.model or "", self.label, self.to_parameters(), earlier=earlier)
        if self.fusion is None:
            return entry
        members = tuple(member.to_entry() for member in self.fusion.of)
        return replace(entry, model=self.fusion.by, fusion=FusionEntry(members, self.fusion.template))


EntryBody.model_rebuild()


def to_messages(bodies: Sequence[MessageBody] | None) -> tuple[Message, ...]:
    """Return messages as `plan` takes them."""
    return tuple(body.to_message() for body in bodies or ())


def entries_schema(entry: str) -> WithJsonSchema:
    """Return the schema of `model`: a name, an object of the named component, or a list of either."""
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
    one: list[JsonObject] = [name, {"$ref": f"#/components/schemas/{entry}"}]
    several = {"type": "array", "minItems": 1, "maxItems": MAX_ENTRIES, "items": {"anyOf": one}}
    return WithJsonSchema({"anyOf": [*one, several]})


IN_PATH = WithJsonSchema({})
"""Schema of a field that the path replaces: any value is as good."""
EntryCount = Field(min_length=1, max_length=MAX_ENTRIES)
Models = Annotated[list[EntryBody], IN_STEPS, to_entry_list(EntryBody), EntryCount, entries_schema("EntryBody")]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
    at_most(16, "entries"),
]
ReturnWhen = Annotated[
    int | None,
    BeforeValidator(_parse_return_when),
    WithJsonSchema({"anyOf": [{"enum": ["all", "first"]}, {"type": "integer", "minimum": 1}, {"type": "null"}]}),
]


def validate_body(
    raw: bytes | bytearray,
    model: type[Body],
    context: Mapping[str, Any] | None = None,
    replaced: Mapping[str, str] | None = None,
) -> Body:
    """Validate a JSON body.

    Args:
        raw: the body.
        model: validates it.
        context: what its validators find.
        replaced: fields that count instead of the body's own.

    Raises:
        RequestError: names every wrong field.
    """
    value = parse_body(raw)
    if replaced and isinstance(value, dict):
        value |= replaced
    return validate_value(value, model, context)


def validate_value(value: Any, model: type[Body], context: Mapping[str, Any] | None = None) -> Body:
    """Validate the value of a JSON body; see `validate_body`."""
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        # `from None`: pydantic's error quotes the input, and no prompt or key may reach a log.
        in_json = ValidationError.from_exception_data(error.title, list(list_faults(error)), "json")  # has arrays, not lists
        raise RequestError(list(_restore_paths(to_faults(in_json, model), value))) from None


def parse_body(raw: bytes | bytearray, *, allow_inf_nan: bool = True) -> Any:
    """Return the value of a body; raise `RequestError` if it is not JSON."""
    try:
        return parse_in_steps(raw, allow_inf_nan=allow_inf_nan)
    except ValueError as error:
        raise RequestError([Fault("", f"the body is not valid JSON: {error}", "invalid_json")]) from None


def refuse_infinite(raw: bytes | bytearray) -> None:
    """Refuse a body with `NaN`, `Infinity` or a number beyond floats, such as `1e999`: upstream all of them would be null.

    Raises:
        RequestError: names the fields of such numbers, or the place of a constant, which JSON does not have.
    """
    places = islice(find_infinite(parse_body(raw, allow_inf_nan=False)), MAX_FAULTS)
    if faults := [Fault(to_json_path(place), TOO_LARGE) for place in places]:
        raise RequestError(faults)


def explain_timeout(timeout_s: float | None, max_timeout_s: float) -> str | None:
    """Return an error sentence if a deadline exceeds this server's limit, else `None`."""
    if timeout_s and timeout_s > max_timeout_s:
        return f"{timeout_s:g} is not allowed: at most {max_timeout_s:g} here"
    return None


def explain_return_when(return_when: int | None, entries: int) -> str | None:
    """Return an error sentence if more answers are awaited than there are entries, else `None`."""
    if return_when is not None and not 1 <= return_when <= entries:
        return f"{return_when} is not allowed: `all`, `first`, or 1 to {entries}, the number of entries"
    return None


def check_limits(timeout_s: float | None, return_when: int | None, calls: Sequence[Call], max_timeout_s: float) -> None:
    """Check the fields that depend on the server's settings or on the planned calls.

    Raises:
        RequestError: names every wrong field.
    """
    problems = {
        "timeout_s": explain_timeout(timeout_s, max_timeout_s),
        "return_when": explain_return_when(return_when, count_entries(calls)),
    }
    if faults := [Fault(field, problem) for field, problem in problems.items() if problem]:
        raise RequestError(faults)


def _restore_paths(faults: Sequence[Fault], body: object) -> Iterator[Fault]:
    """Write paths as the caller wrote `model`: `model` for a single name, `model[1]` for a name in a list.

    Validation saw a list of objects instead, so the path of a fault in a plain name is `model[1].model`.
    """
    for fault in faults:
        found = re.match(r"model\[(\d+)\](\.model$)?(.*)", fault.path)
        if found is None or not isinstance(body, dict):
            yield fault
            continue
        is_list = isinstance(body["model"], list)
        entry = body["model"][int(found[1])] if is_list else body["model"]
        place = f"model[{found[1]}]" if is_list else "model"
        below = (found[2] or "") if isinstance(entry, dict) else ""
        yield Fault(f"{place}{below}{found[3]}", fault.message, fault.kind)
