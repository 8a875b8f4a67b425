"""Prompt templates: `{{name}}` stands for a row's value. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from string import Template

from pydantic_core import to_json

from fanout.core.errors import Fault, RequestError
from fanout.jobs.input_formats.rows import MAX_ROW_BYTES

# `{{` before a third brace is no match, so that the search goes on at the second: `{` and then `{{name}}`.
_PATTERN = r"""
    (?P<escaped>\{\{\{\{)
    | \{\{ [^\S\n]* (?P<named>\w(?:[\w .-]*[\w.-])?) [^\S\n]* \}\}
    | (?P<braced>(?!))
    | (?P<invalid>\{\{(?!\{))
"""
MAX_TEMPLATE_CHARS = 2**20
MAX_FAULTS = 100
"""Reported of one template."""
_CLOSED = re.compile(r"\{\{([^{}\n]*)\}\}")


class PromptTemplate(Template):
    """A prompt with variables: `{{name}}` is the row's value of that name; spaces around the name do not matter.

    Nothing else is special: there are no filters and no conditions, and single braces and `}}` are themselves. A literal
    `{{` is written `{{{{`. Of three braces the first is itself: `{{{name}}}` is the value in braces.
    """

    delimiter = "{{"
    pattern = _PATTERN  # type: ignore[assignment]  # `Template` compiles it

    def __init__(self, text: str) -> None:
        """Check the template: `RequestError` where `{{` is not closed on its line, a name is not valid, or none is there."""
        super().__init__(text)
        if len(text) > MAX_TEMPLATE_CHARS:
            sentence = f"has {len(text):,} characters: at most {MAX_TEMPLATE_CHARS:,} are allowed"
            raise RequestError([Fault("template", sentence)])
        # Counted here: the standard library looks each name up in a list of all before it.
        found = list(re.finditer(self.pattern, text))
        self._counts = Counter(match["named"] for match in found if match["named"])
        self.variables = tuple(self._counts)
        invalid = (match.start() for match in found if match["invalid"])
        faults = [_describe_fault(text, start) for start in islice(invalid, MAX_FAULTS)]
        if not faults and not self.variables:
            faults = [Fault("template", "has no variable like `{{question}}`: every row would ask the same")]
        if faults:
            raise RequestError(faults)

    def render(self, values: Mapping[str, object]) -> str:
        """Return the prompt for a row; a value that is not text is written as JSON.

        Raises:
            RequestError: it is too long.
        """
        row = {name: values[name] for name in self.variables}
        texts = {name: value if isinstance(value, str) else to_json(value).decode() for name, value in row.items()}
        # Before it is built: a variable may stand in the template thousands of times.
        length = len(self.template) + sum(len(texts[name]) * count for name, count in self._counts.items())
        if length > MAX_ROW_BYTES:
            raise RequestError(
                [Fault("template", f"makes a prompt of {length:,} characters: at most {MAX_ROW_BYTES:,} are allowed")]
            )
        return self.substitute(texts)


def _describe_fault(text: str, start: int) -> Fault:
    line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    excerpt = text[start : start + 30].split("\n")[0]
    closed = _CLOSED.match(text, start)
    if closed is None:
        reason = "is not closed by `}}` on its line; a literal `{{` is written `{{{{`"
    elif not closed[1].strip():
        reason = "has no variable name"
    else:
        reason = "is not a variable name: letters, digits, `_`, `-`, `.` and spaces are allowed, filters and code are not"
    return Fault("template", f"`{excerpt}` in line {line}, column {column} {reason}")
