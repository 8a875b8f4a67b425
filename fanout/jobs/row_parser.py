"""Rows of a job's input, validated: every fault of a row at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Annotated

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from fanout.core.errors import Fault, RequestError
from fanout.core.faults import to_faults
from fanout.core.json_text import JsonObject
from fanout.core.json_values import MAX_VALUES, TOO_LARGE, find_infinite, has_too_many_values
from fanout.core.long_lists import IN_STEPS
from fanout.core.messages import MessageBody
from fanout.core.sampling import SAMPLING_NAMES
from fanout.core.sampling_fields import validate_sampling
from fanout.core.suggestions import did_you_mean, find_misspelt
from fanout.jobs.input_formats.rows import MAX_COLUMNS, MAX_NAME_CHARS, UnusableValue
from fanout.jobs.template import PromptTemplate

ROW_FIELDS = ("prompt", "messages", "system", "reference", "custom_id", "parameters")
"""Fields of a row beside its sampling parameters."""
KNOWN = frozenset({*ROW_FIELDS, *SAMPLING_NAMES})
MISSPELLABLE = KNOWN - {"n"}
"""Fields that a column may be a misspelling of; of one letter nobody can tell."""
JSON_IN_CELLS = frozenset({"messages", "parameters", "stop", "logit_bias", "reference"})
"""Fields that may be a list or an object, so they stand in a cell as JSON."""
_ONLY_IN_REQUESTS = "is only for lines with `custom_id`, `method`, `url` and `body`; here it would not be sent"
_SAME_MODELS = "cannot be set by a row: a job sends every row to the same models"
NOT_FOR_ROWS: Mapping[str, str] = {
    "n": "cannot be set by a row: use the job's `repeats`",
    "model": _SAME_MODELS,
    "models": _SAME_MODELS,
    "repeats": "cannot be set by a row: a job repeats every row equally often",
    "stream": "cannot be set by a row: the answers of a job are not streamed",
    "max_new_tokens": "is called `max_tokens` here",
    "max_completion_tokens": "is called `max_tokens` here",
    **dict.fromkeys(("tools", "tool_choice", "response_format", "reasoning_effort", "functions"), _ONLY_IN_REQUESTS),
}
"""Names that look as if they were sent, and are not."""
MAX_CUSTOM_ID_CHARS = 512
MAX_NEAR_NAMES = 100
"""Missing variables that are reported, and names of the row that are searched for what they may be."""
NEVER_SENT = ("reference", "custom_id")
"""Fields that keep their meaning although the template uses them as variables."""
TEXT_OR_JSON = ("stop", "reference")
"""Fields that may be plain text in a cell as well as JSON."""
SYSTEM_ROLES = frozenset({"system", "developer"})
MESSAGES = TypeAdapter(Annotated[list[MessageBody], IN_STEPS])


@dataclass(frozen=True, slots=True)
class RowItem:
    """A validated row. Either `prompt` or `messages`."""

    prompt: str | None = None
    messages: Sequence[JsonObject] | None = None
    """As OpenAI writes them."""
    system: str | None = None
    reference: object = None
    """A good answer, usually text."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """The row's own, by the names of `schema.Sampling`."""
    custom_id: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    """Its other columns."""

    def body(self) -> JsonObject:
        """Return what `build_request` takes, without absent fields; the custom id is kept beside it."""
        present = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "custom_id"}
        # Rows are stored by the hundred thousand: absent fields would be most of their bytes. `{}` is a legal expected
        # answer.
        return {name: value for name, value in present.items() if value is not None and (value != {} or name == "reference")}

    def to_json(self) -> str:
        """Return the body as it is stored."""
        return to_json(self.body()).decode()


def parse_row(
    values: Mapping[str, object], template: PromptTemplate | None = None, *, typed: bool = True
) -> RowItem | list[Fault]:
    """Return a row of the input as an item, or everything that is wrong with it.

    A name that the template uses is a variable and nothing else, but for `reference` and `custom_id`, which are never sent.
    `null` counts as absent. Unknown names are kept as `values`. Unless the input is `typed`, `"5"` is a number too, and a text
    may hold a list or an object as JSON.
    """
    if len(values) > MAX_COLUMNS:
        return [Fault("", f"has {len(values):,} names: at most {MAX_COLUMNS:,} are allowed")]
    row = _RowParser(values, template, typed=typed)
    item = row.parse()
    return row.faults or item


class _RowParser:
    """A row being parsed: its known fields, its other columns, and its faults so far."""

    def __init__(self, values: Mapping[str, object], template: PromptTemplate | None, *, typed: bool) -> None:
        self._template, self._typed = template, typed
        self._variables = frozenset(template.variables) if template else frozenset()
        unusable = {name: value for name, value in values.items() if isinstance(value, UnusableValue)}
        self._given = {name: value for name, value in values.items() if value is not None and name not in unusable}
        # A variable of the template is no parameter, even under a parameter's name: it would change what is sent unseen.
        own = {name: value for name, value in self._given.items() if name in KNOWN and name not in self._variables}
        self._others = {name: value for name, value in self._given.items() if name not in own}
        self._own = own | {name: self._given[name] for name in NEVER_SENT if name in self._given}
        # A column that nothing uses never stops a job.
        self._unusable = {name: value for name, value in unusable.items() if name in KNOWN or name in self._variables}
        self.faults = [Fault(name, value.reason) for name, value in self._unusable.items()]

    def parse(self) -> RowItem:
        """Return the item; it holds only where `faults` stays empty."""
        if not self._typed:
            self._own = {
                name: self._parse_cell(name, value) if name in JSON_IN_CELLS else value for name, value in self._own.items()
            }
        self.faults += _find_misnamed_fields(self._given, self._variables)
        item = RowItem(
            prompt=self._prompt() if self._template is None else self._render(self._template),
            messages=self._messages() if self._template is None else None,
            system=self._text("system"),
            reference=self._own.get("reference"),
            parameters=self._parameters(),
            custom_id=self._custom_id(),
            values={name: value for name, value in self._others.items() if name not in NEVER_SENT},
        )
        if item.system is not None and any(message.get("role") in SYSTEM_ROLES for message in item.messages or ()):
            self._add_fault("system", "is given twice: here, and as a message of `messages`")
        return item

    def _add_fault(self, path: str, message: str, kind: str = "invalid_value") -> None:
        self.faults.append(Fault(path, message, kind))

    def _prompt(self) -> str | None:
        own = self._own
        if "prompt" in own and "messages" in own:
            self._add_fault("prompt", "stands beside `messages`: a row has one of the two")
        elif not {"messages", "prompt"} & (own.keys() | self._unusable.keys()):
            columns = f"this row has {_name_some(self._others)}" if self._others else "this row has neither"
            self._add_fault("prompt", f"is required, or `messages`, or a template; {columns}", "missing_required_parameter")
        elif own.get("prompt") == "":
            self._add_fault("prompt", "is empty")
        return self._text("prompt")

    def _render(self, template: PromptTemplate) -> str | None:
        unused = f"stands beside the template, which does not use it: it has {_name_some(template.variables)}"
        for name in ("prompt", "messages"):
            if name in self._own:
                self._add_fault(name, unused)
        missing = [name for name in template.variables if name not in self._others and name not in self._unusable]
        near = list(islice(self._others, MAX_NEAR_NAMES))  # of ten thousand columns each comparison would take a while
        for name in missing[:MAX_NEAR_NAMES]:
            reason = "is a variable of the template, and missing or empty in this row" + did_you_mean(name, near)
            self._add_fault(name, reason, "missing_required_parameter")
        if missing or self.faults:
            return None
        try:
            return template.render({**self._own, **self._others})
        except RequestError as error:
            self.faults += error.faults
            return None

    def _messages(self) -> Sequence[JsonObject] | None:
        messages = self._own.get("messages")
        if messages is None:
            return None
        if messages == []:
            self._add_fault("messages", "is empty: at least one message is required")
            return None
        try:
            # Strict: `"true"` for a boolean would be accepted here and refused by the provider, once for every call.
            MESSAGES.validate_python(messages, strict=True)
        except ValidationError as error:
            for fault in to_faults(error):
                self._add_fault(f"messages{fault.path}", fault.message, fault.kind)
            return None
        assert isinstance(messages, list)
        return list(messages)

    def _parameters(self) -> Mapping[str, object]:
        """Return those beside the prompt and those in `parameters`. Most rows have none."""
        beside = {name: value for name, value in self._own.items() if name in SAMPLING_NAMES and name != "n"}
        inside = self._own.get("parameters")
        if inside is None:
            return self._validate(beside, "") if beside else {}
        if not isinstance(inside, Mapping):
            self._add_fault("parameters", "must be an object of sampling parameters")
            return {}
        for name in inside:
            if name in NOT_FOR_ROWS:
                self._add_fault(f"parameters.{name}", NOT_FOR_ROWS[name])
            elif name in beside:
                self._add_fault(f"parameters.{name}", f"is given twice: here, and beside `parameters` as `{name}`")
        rest = {name: value for name, value in inside.items() if name not in NOT_FOR_ROWS and value is not None}
        return {**self._validate(beside, ""), **self._validate(rest, "parameters.")}

    def _validate(self, parameters: Mapping[str, object], prefix: str) -> Mapping[str, object]:
        return validate_sampling(parameters, prefix, self.faults, strict=self._typed)

    def _custom_id(self) -> str | None:
        given = self._own.get("custom_id")  # a table's reader may have made a number of it, and a fraction of a whole one
        if isinstance(given, float) and given.is_integer():
            return str(int(given))
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        found = self._text("custom_id")
        if found is not None and not 1 <= len(found) <= MAX_CUSTOM_ID_CHARS:
            self._add_fault("custom_id", f"has {len(found)} characters: 1 to {MAX_CUSTOM_ID_CHARS} are allowed")
        return found

    def _text(self, name: str) -> str | None:
        value = self._own.get(name)
        if value is None or isinstance(value, str):
            return value
        self._add_fault(name, f"{to_json(value).decode()[:80]} is not allowed: must be text")
        return None

    def _parse_cell(self, name: str, value: object) -> object:
        """Return what a cell holds as JSON, where it can be nothing else or is plainly meant so."""
        # Plain text is the usual reference: `12` there means the text, not a number.
        if not isinstance(value, str) or (name in TEXT_OR_JSON and not value.lstrip().startswith(("[", "{"))):
            return value
        # Counted before it is parsed: eight megabytes of `[[[…` are millions of objects.
        if has_too_many_values(value):
            self._add_fault(name, f"holds more than {MAX_VALUES:,} values as JSON")
            return None
        try:
            # NaN in a parameter is JSON for no provider.
            parsed = from_json(value, allow_inf_nan=False)
        except ValueError as error:
            if name in TEXT_OR_JSON:
                return value
            self._add_fault(name, f"is not valid JSON: {error}")
            return None
        if any(find_infinite(parsed)):
            self._add_fault(name, f"holds what {TOO_LARGE}")
        return parsed


def _name_some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(f"`{name[:40]}`" for name in listed[:8]) + more


def _find_misnamed_fields(names: Iterable[str], variables: frozenset[str]) -> Iterator[Fault]:
    """Yield a fault for each name that was meant for a known field, or for something a row cannot set."""
    # Without this a typo would silently become a column of the results, after every call was paid for.
    names = dict.fromkeys(names)
    for name in names:
        if name in variables or (name in KNOWN and name != "n"):
            continue
        if name in NOT_FOR_ROWS:
            yield Fault(name, f"{NOT_FOR_ROWS[name]}; rename it, if it is something else")
        elif len(name) <= MAX_NAME_CHARS and (known := find_misspelt(name, MISSPELLABLE)) and known not in names:
            yield Fault(name, f"unknown field `{name}`; did you mean `{known}`? If not, rename it", "unknown_parameter")
