"""Fields a row may have, and names that were meant for one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fanout.core.errors import Fault
from fanout.core.sampling import SAMPLING_NAMES
from fanout.core.suggestions import find_misspelt

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


def find_misnamed(names: Iterable[str], variables: frozenset[str]) -> Iterator[Fault]:
    """Yield a fault for each name that was meant for a known field, or for something a row cannot set.

    Without this a typo would silently become a column of the results, after every call was paid for.
    """
    names = tuple(names)
    for name in names:
        if name in variables or (name in KNOWN and name != "n"):
            continue
        if name in NOT_FOR_ROWS:
            yield Fault(name, f"{NOT_FOR_ROWS[name]}; rename it, if it is something else")
        elif (known := find_misspelt(name, MISSPELLABLE)) is not None and known not in names:
            yield Fault(name, f"unknown field `{name}`; did you mean `{known}`? If not, rename it", "unknown_parameter")
