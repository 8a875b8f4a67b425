"""A row of a job's input → what is asked: the prompt from a template, the row's own parameters, every fault at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from fanout.core.errors import RequestError
from fanout.core.faults import Fault, to_faults
from fanout.core.messages import MessageBody
from fanout.core.sampling import checked
from fanout.core.schema import SAMPLING_NAMES, Message, Sampling
from fanout.core.suggestions import did_you_mean, find_misspelt
from fanout.dispatch.plan import Entry, Request, parse_entries
from fanout.jobs.job import JobSpec

MAX_CUSTOM_ID_CHARS = 512
FIELDS = ("prompt", "messages", "system", "reference", "custom_id", "parameters")
"""What a row may say beside its sampling parameters."""
KNOWN = frozenset({*FIELDS, *SAMPLING_NAMES})
MISTAKABLE = KNOWN - {"n"}
"""Names that a column may be mistyped for; one letter is too little to tell."""
REQUEST_LINE = frozenset({"custom_id", "method", "url", "body"})
ONLY_IN_REQUESTS = "is only for lines with `custom_id`, `method`, `url` and `body`; here it would not be sent"
NOT_OF_ROWS: Mapping[str, str] = {
    "n": "is not a row's: use the job's `repeats`",
    "model": "is not a row's: a job asks the same models for every row",
    "models": "is not a row's: a job asks the same models for every row",
    "repeats": "is not a row's: a job asks every row equally often",
    "stream": "is not a row's: answers are not streamed",
    "max_new_tokens": "is called `max_tokens` here",
    "max_completion_tokens": "is called `max_tokens` here",
    **dict.fromkeys(("tools", "tool_choice", "response_format", "reasoning_effort", "functions"), ONLY_IN_REQUESTS),
}
"""Names that would be taken for something that is sent, and are not."""
RENAME = "; rename it, if it is something else"
IN_CELLS = frozenset({"messages", "parameters", "stop", "logit_bias", "reference"})
"""What may be a list or an object, so stands in a cell as JSON."""
SYSTEM_ROLES = frozenset({"system", "developer"})

_MESSAGES = TypeAdapter(list[MessageBody])


# The template


_PLACE = re.compile(r"\{\{\{\{|\{(?=\{\{(?!\{))|\{\{([^{}\n]*)\}\}|\{\{")
_NAME = re.compile(r"\w[\w .-]*")


class PromptTemplate:
    """A prompt with variables: `{{name}}` is what the row has under that name; spaces around the name do not matter.

    Nothing else is special: no filters, no conditions, single braces and `}}` are themselves. A literal `{{` is written
    `{{{{`, and of three braces the first is itself: `{{{name}}}` is the value in braces.

    Raises:
        RequestError: a `{{` that is not closed on its line, a name that is none, or no variable at all.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[tuple[str, str | None]] = []
        faults: list[Fault] = []
        at, before = 0, ""
        for found in _PLACE.finditer(text):
            before += text[at : found.start()]
            at = found.end()
            if found[0] in ("{", "{{{{"):
                before += found[0][:2]
            elif (name := (found[1] or "").strip()) and _NAME.fullmatch(name):
                self._parts.append((before, name))
                before = ""
            else:
                faults.append(_misplaced(text, found))
        self._parts.append((before + text[at:], None))
        self.variables = tuple(dict.fromkeys(name for _, name in self._parts if name is not None))
        if not faults and not self.variables:
            faults = [Fault("template", "has no variable like `{{question}}`: every row would ask the same")]
        if faults:
            raise RequestError(faults)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def render(self, values: Mapping[str, Any]) -> str:
        """The prompt for a row; what is no text is written as JSON.

        Raises:
            KeyError: a variable is missing.
        """
        return "".join(part if name is None else part + to_text(values[name]) for part, name in self._parts)


def to_text(value: Any) -> str:
    """A text itself, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()


def _misplaced(text: str, found: re.Match[str]) -> Fault:
    start = found.start()
    line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    shown = text[start : start + 30].split("\n")[0]
    if found[1] is None:
        why = "is not closed by `}}` on its line; a literal `{{` is written `{{{{`"
    elif not found[1].strip():
        why = "names no variable"
    else:
        why = "is no name of a variable: letters, digits, `_`, `-`, `.` and spaces, no filters and no code"
    return Fault("template", f"`{shown}` in line {line}, column {column} {why}")


# A row


@dataclass(frozen=True, slots=True)
class RowItem:
    """One row, checked. Either `prompt` or `messages`."""

    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    """As OpenAI writes them."""
    system: str | None = None
    reference: Any = None
    """What a good answer is; usually text."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The row's own, by the names of `schema.Sampling`."""
    custom_id: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Its other columns."""

    def body(self) -> dict[str, Any]:
        """What `request_of` takes, without what is absent; the custom id is kept beside it."""
        said = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "custom_id"}
        return {name: value for name, value in said.items() if value is not None and (value != {} or name == "reference")}

    def to_json(self) -> str:
        return to_json(self.body()).decode()


class RowRequestBuilder:
    """How a job understands rows of prompts: see `job.RequestBuilder`."""

    def __init__(
        self,
        entries: tuple[Entry, ...],
        *,
        template: str | None = None,
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        strict: bool = False,
        repeats: int = 1,
        account_id: str | None = None,
        typed: bool = True,
    ) -> None:
        """
        Args:
            sampling: the job's parameters, checked.
            typed: whether the input's format tells numbers from text: see `rows.TYPED`.

        Raises:
            RequestError: the template cannot be used.
        """
        self._template = None if template is None else PromptTemplate(template)
        self._typed = typed
        self._asked: Mapping[str, Any] = {
            "entries": entries,
            "system": system,
            "sampling": sampling or {},
            "strict": strict,
            "repeats": repeats,
            "account_id": account_id,
        }

    def parse_row(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        """The custom id of a row, and what is kept of it as JSON.

        Raises:
            RequestError: with every fault of the row.
        """
        made = parse_row(values, self._template, typed=self._typed)
        if isinstance(made, RowItem):
            return made.custom_id, made.to_json()
        raise RequestError(made)

    def build_request(self, body: str) -> Request:
        """What such a row asks."""
        return build_request(from_json(body), **self._asked)


def make_row_request_builder(spec: JobSpec, account_id: str) -> RowRequestBuilder:
    """How a job of that kind understands its rows.

    Raises:
        RequestError: its models, parameters or template cannot be used.
    """
    faults: list[Fault] = []
    entries = parse_entries(spec.models, faults)
    sampling = checked(spec.parameters, "parameters.", faults)
    if "n" in sampling or any("n" in entry.overrides for entry in entries):
        faults.append(Fault("n", "is not a job's parameter: use `repeats`"))
    if spec.repeats < 1:
        faults.append(Fault("repeats", f"{spec.repeats} is not allowed: at least 1"))
    if faults:
        raise RequestError(faults)
    return RowRequestBuilder(
        entries,
        template=spec.template,
        system=spec.system,
        sampling=sampling,
        strict=spec.strict,
        repeats=spec.repeats,
        account_id=account_id or None,
        typed=spec.typed,
    )


def is_request_line(values: Mapping[str, Any]) -> bool:
    """Whether a row is a line of OpenAI's batches. Source: `BatchRequestInput`, https://github.com/openai/openai-openapi"""
    return values.keys() >= REQUEST_LINE


def parse_row(
    values: Mapping[str, Any], template: PromptTemplate | None = None, *, typed: bool = True
) -> RowItem | list[Fault]:
    """One row of the input, or everything that is wrong with it.

    A name that the template uses is a variable and nothing else (but `reference` and `custom_id`, which are not sent, stay what
    they are). `null` is as if absent. Names that are not known are kept as `values`.

    Args:
        typed: numbers are numbers; else `"5"` is one, too, and lists and objects may be JSON in a text.
    """
    faults: list[Fault] = []
    variables = frozenset(template.variables) if template else frozenset()
    given = {name: value for name, value in values.items() if value is not None}
    own = {name: value for name, value in given.items() if name in KNOWN and name not in variables}
    others = {name: value for name, value in given.items() if name not in own}
    own |= {name: given[name] for name in ("reference", "custom_id") if name in given}
    if not typed:
        own = {name: _from_cell(name, value, faults) if name in IN_CELLS else value for name, value in own.items()}
    faults += _misnamed(given, variables)
    item = RowItem(
        prompt=_prompt(own, others, template, faults),
        messages=_messages(own, template, faults),
        system=_text(own, "system", faults),
        reference=own.get("reference"),
        parameters=_parameters(own, faults, typed=typed),
        custom_id=_custom_id(own, faults),
        values={name: value for name, value in others.items() if name not in ("reference", "custom_id")},
    )
    if item.system is not None and any(message.get("role") in SYSTEM_ROLES for message in item.messages or ()):
        faults.append(Fault("system", "stands twice: here, and as a message of `messages`"))
    return faults or item


def build_request(
    item: Mapping[str, Any],
    *,
    entries: tuple[Entry, ...],
    system: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    strict: bool = False,
    repeats: int = 1,
    account_id: str | None = None,
) -> Request:
    """What an item asks: an entry's own parameters before the row's, the row's before the job's.

    Args:
        item: `Item.body()`, or what JSON has made of it.
        system: the job's; not for a row that has a system message of its own.
        sampling: the job's, checked.
        repeats: how often every model is asked.
    """
    asked = {**(sampling or {}), **item.get("parameters", {})}
    if asked.get("stop") is not None:
        asked["stop"] = tuple(asked["stop"])
    if repeats > 1:
        asked["n"] = repeats
    messages = _taken(item["messages"]) if "messages" in item else None
    if any(message.role in SYSTEM_ROLES for message in messages or ()):
        system = None
    return Request(
        entries=entries,
        prompts=(item["prompt"],) if messages is None else (),
        messages=messages,
        system=item.get("system", system),
        sampling=Sampling(**asked),
        strict=strict,
        account_id=account_id,
    )


def _taken(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(message.message() for message in _MESSAGES.validate_python(messages, strict=True))


def _prompt(
    own: Mapping[str, Any], others: Mapping[str, Any], template: PromptTemplate | None, faults: list[Fault]
) -> str | None:
    if template is None:
        if "prompt" in own and "messages" in own:
            faults.append(Fault("prompt", "stands beside `messages`: a row has one of the two"))
        elif "messages" not in own and "prompt" not in own:
            has = f"this row has {_named(others)}" if others else "this row has neither"
            faults.append(Fault("prompt", f"is required, or `messages`, or a template; {has}", "missing_required_parameter"))
        elif own.get("prompt") == "":
            faults.append(Fault("prompt", "is empty"))
        return _text(own, "prompt", faults)
    beside = f"stands beside the template, which does not use it: it has {_named(template.variables)}"
    faults += [Fault(name, beside) for name in ("prompt", "messages") if name in own]
    missing = [name for name in template.variables if name not in others]
    absent = "is a variable of the template, and absent or empty in this row"
    faults += [Fault(name, absent + did_you_mean(name, others), "missing_required_parameter") for name in missing]
    return None if missing else template.render({**own, **others})


def _messages(
    own: Mapping[str, Any], template: PromptTemplate | None, faults: list[Fault]
) -> Sequence[Mapping[str, Any]] | None:
    messages = own.get("messages")
    if messages is None or template is not None:
        return None
    if messages == []:
        faults.append(Fault("messages", "is empty: at least one message is asked for"))
        return None
    try:
        _MESSAGES.validate_python(messages, strict=True)
    except ValidationError as error:
        faults += [Fault(f"messages{fault.path}", fault.message, fault.kind) for fault in to_faults(error)]
        return None
    return list(messages)


def _parameters(own: Mapping[str, Any], faults: list[Fault], *, typed: bool) -> Mapping[str, Any]:
    """Those beside the prompt and those in `parameters`. Most rows have none."""
    beside = {name: value for name, value in own.items() if name in SAMPLING_NAMES and name != "n"}
    inside = own.get("parameters")
    if inside is None:
        return checked(beside, "", faults, strict=typed) if beside else {}
    if not isinstance(inside, Mapping):
        faults.append(Fault("parameters", "must be an object of sampling parameters"))
        return {}
    for name in inside:
        if name in NOT_OF_ROWS:
            faults.append(Fault(f"parameters.{name}", NOT_OF_ROWS[name]))
        elif name in beside:
            faults.append(Fault(f"parameters.{name}", f"stands twice: here, and beside `parameters` as `{name}`"))
    rest = {name: value for name, value in inside.items() if name not in NOT_OF_ROWS and value is not None}
    return {**checked(beside, "", faults, strict=typed), **checked(rest, "parameters.", faults, strict=typed)}


def _custom_id(own: Mapping[str, Any], faults: list[Fault]) -> str | None:
    given = own.get("custom_id")
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    found = _text(own, "custom_id", faults)
    if found is not None and not 1 <= len(found) <= MAX_CUSTOM_ID_CHARS:
        faults.append(Fault("custom_id", f"has {len(found)} characters: 1 to {MAX_CUSTOM_ID_CHARS} are allowed"))
    return found


def _text(own: Mapping[str, Any], name: str, faults: list[Fault]) -> str | None:
    value = own.get(name)
    if value is None or isinstance(value, str):
        return value
    faults.append(Fault(name, f"{to_json(value).decode()[:80]} is not allowed: must be text"))
    return None


def _from_cell(name: str, value: Any, faults: list[Fault]) -> Any:
    """What a cell holds as JSON, where it can be nothing else or is plainly meant so."""
    if not isinstance(value, str):
        return value
    if name in ("stop", "reference") and not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        if name in ("stop", "reference"):
            return value
        faults.append(Fault(name, f"is not valid JSON: {error}"))
        return None
    return found


# Names


def _misnamed(given: Mapping[str, Any], variables: frozenset[str]) -> Iterator[Fault]:
    """Names that were meant for known ones, or for something that a row cannot say."""
    for name in given:
        if name in variables or (name in KNOWN and name != "n"):
            continue
        if name in NOT_OF_ROWS:
            yield Fault(name, f"{NOT_OF_ROWS[name]}{RENAME}")
        elif (known := find_misspelt(name, MISTAKABLE)) is not None and known not in given:
            yield Fault(name, f"unknown field `{name}`; did you mean `{known}`? If not, rename it", "unknown_parameter")


def _named(names: Sequence[str] | Mapping[str, Any]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(f"`{name[:40]}`" for name in listed[:8]) + more
