"""Declarations of scorers: a name, or an object with options; validated here for every caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.faults import to_faults
from fanout.core.json_text import JsonObject, dump
from fanout.core.suggestions import did_you_mean
from fanout.store.jobs.records import NewScorer

# Imported only where scorers are used: they need the extra `evaluate`, and take a tenth of a second to load.
if TYPE_CHECKING:
    from fanout.evaluate.scorers import Scorer

MAX_SCORERS = 32
FUNCTION = "python"
"""The type that runs code of its caller's choice."""


def parse_scorers(declared: Sequence[object], *, allow_functions: bool) -> tuple[Scorer, ...]:
    """Return the scorers of declarations such as `"exact"` and `{"type": "regex", "pattern": "^[0-9]+$"}`.

    Args:
        declared: names, or objects with a `type` and options.
        allow_functions: whether `python` is allowed. Whoever names a function runs code here.

    Raises:
        RequestError: with every fault.
    """
    if len(declared) > MAX_SCORERS:
        raise RequestError([Fault("scorers", f"{len(declared)} are not allowed: at most {MAX_SCORERS}")])
    faults: list[Fault] = []
    labels: dict[str, int] = {}
    found: list[Scorer] = []
    for index, one in enumerate(declared):
        path = f"scorers[{index}]"
        scorer = _parse_one(one, path, faults, allow_functions=allow_functions)
        if scorer is None:
            continue
        if scorer.label in labels:
            place = f"scorers[{labels[scorer.label]}]"
            faults.append(Fault(f"{path}.name", f"`{scorer.label}` is taken by `{place}`: give one of them another `name`"))
        # Results are stored and shown by label: two of one name could not be distinguished.
        labels.setdefault(scorer.label, index)
        found.append(scorer)
    if faults:
        raise RequestError(faults)
    return tuple(found)


def _parse_one(declared: object, path: str, faults: list[Fault], *, allow_functions: bool) -> Scorer | None:
    """Return a scorer; `None` adds to the faults."""
    known = _load_types()
    given = {"type": declared} if isinstance(declared, str) else declared
    if not isinstance(given, Mapping):
        faults.append(Fault(path, "must be a scorer's name, or an object with its `type`"))
        return None
    name = given.get("type")
    if not isinstance(name, str) or name not in known:
        problem = "is required" if name is None else f"`{str(name)[:40]}` is no scorer{did_you_mean(str(name), known)}"
        faults.append(Fault(f"{path}.type", f"{problem}; known: {', '.join(known)}"))
        return None
    # Before it is built: importing the named module is running its code.
    if name == FUNCTION and not allow_functions:
        faults.append(Fault(f"{path}.type", "`python` runs code: a server refuses it; use `fanout evaluate score` beside it"))
        return None
    try:
        return known[name].model_validate(given)
    except ValidationError as error:
        found = to_faults(error, known[name])
        faults.extend(Fault(f"{path}.{fault.path}" if fault.path else path, fault.message, fault.kind) for fault in found)
        return None


def _load_types() -> Mapping[str, type[Scorer]]:
    """Return the scorers by type.

    Raises:
        RequestError: a package of the extra `evaluate` is missing.
    """
    try:
        from fanout.evaluate.scorers import AnyScorer
    except ImportError as error:
        sentence = f"need {explain_missing_extra(error.name or 'regex', 'evaluate')}"
        raise RequestError([Fault("scorers", sentence)]) from None
    # From the union itself, so that a new scorer is declared in one place.
    return {scorer.model_fields["type"].default: scorer for scorer in get_args(get_args(AnyScorer)[0])}


def to_declaration(scorer: Scorer) -> JsonObject:
    """Return a scorer as a job stores it: its type, and the options that differ from the defaults."""
    return {"type": scorer.type, **scorer.model_dump(mode="json", by_alias=True, exclude_defaults=True)}


def to_new_scorer(scorer: Scorer) -> NewScorer:
    """Return a scorer as the store takes it."""
    declaration = dump(to_declaration(scorer)).decode()
    return NewScorer(scorer.label, scorer.version, declaration, scorer.is_bounded, scorer.is_higher_better)
