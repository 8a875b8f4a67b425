"""What becomes of the parameters a caller asked for, by the rules of a table: sent, ignored or adjusted.

Nothing undeclared is sent: hosts differ in whether they refuse or silently swallow what they do not know, so "ignored" must
come from here and never from an upstream's error. The formats' tables are in `formats.py`; a host only changes one (`accept`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fanout.config.settings import ParametersRow
from fanout.core.schema import Fitted, Query


@dataclass(frozen=True, slots=True)
class Rule:
    """How one parameter of ours goes upstream."""

    name: str
    """The provider's own name for it."""
    low: float | None = None
    high: float | None = None
    """Values beyond [`low`, `high`] are sent as the nearer end, and reported."""
    omit: tuple[Any, ...] = ()
    """Values that this format expresses by leaving the parameter out (an open interval's end, "not set")."""
    positive: bool = False
    """0 and less have no meaning here, nor has any value near them: ignored, not clamped."""
    exact: bool = False
    """The nearer end would mean something else (one seed for another): ignored, not clamped."""
    expand: Callable[[Any], Mapping[str, Any]] | None = None
    """Where one parameter of ours is several of theirs."""


Table = Mapping[str, Rule]
"""Our parameter name → its rule; a name that is absent cannot be taken."""

NO_EFFECT_VALUES: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (0, 1),
    "stop": ((),),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (0,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
}
"""Values under which nothing is lost where the parameter cannot go: not reported as ignored (clients send `n: 1` unasked)."""

COUNTS = frozenset({"max_tokens", "top_k", "n", "best_of", "logprobs"})
"""Parameters that are whole numbers at every provider."""

RESERVED = frozenset({"model", "messages", "prompt", "stream"})
"""Passthrough must not change whom is asked, what, or how the answer comes."""


@dataclass(frozen=True, slots=True)
class AcceptedParameters:
    """A table as one host takes it."""

    rules: Table
    passthrough: frozenset[str] | None
    """The other fields that are taken; `None`: all."""
    dropped: frozenset[str]
    renamed: Mapping[str, str]


def accept(table: Table, overrides: ParametersRow, passthrough: frozenset[str] | None = frozenset()) -> AcceptedParameters:
    """Lays a host's differences over its format's table; once per provider, so that `fit` stays fast.

    A name in `overrides.rename` or `.clamp` is taken even where the table has it not: `{"rename": {"top_k": "top_k"}}`
    declares that this host knows `top_k`.
    """
    rules = dict(table)
    for name, upstream in overrides.rename.items():
        rules[name] = replace(rules.get(name, Rule(name)), name=upstream, expand=None)
    for name, (low, high) in overrides.clamp.items():
        rule = rules.get(name, Rule(name))
        rules[name] = replace(rule, low=_tighter(max, rule.low, low), high=_tighter(min, rule.high, high))
    for name in overrides.drop:
        rules.pop(name, None)
    return AcceptedParameters(rules, passthrough, frozenset(overrides.drop), dict(overrides.rename))


def _tighter(pick: Callable[[float, float], float], ours: float | None, theirs: float | None) -> float | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return pick(ours, theirs)


def fit(query: Query, accepted: AcceptedParameters) -> Fitted:
    """What is sent of what the caller asked for, what is ignored, and what is adjusted (our name → asked, sent).

    A contract's own default (`query.defaults`) is dropped or clamped without a word: the caller did not ask for it.
    """
    sent: dict[str, Any] = {}
    ignored: list[str] = []
    adjusted: dict[str, tuple[Any, Any]] = {}
    for name, value in query.sampling.as_dict().items():
        rule = accepted.rules.get(name)
        if rule is None or (rule.positive and value <= 0) or (rule.exact and _is_beyond(value, rule)):
            if name not in query.defaults and value not in NO_EFFECT_VALUES.get(name, ()):
                ignored.append(name)
            continue
        if rule.omit and value in rule.omit:
            continue
        if _is_beyond(value, rule):
            asked, value = value, _clamped(name, value, rule)
            if name not in query.defaults:
                adjusted[name] = (asked, value)
            if value in rule.omit:
                continue
        if rule.expand is None:
            sent[rule.name] = value
        else:
            sent.update(rule.expand(value))
    if query.passthrough:
        _pass_through(query, accepted, sent, ignored)
    return Fitted(sent, tuple(ignored), adjusted)


def _is_beyond(value: Any, rule: Rule) -> bool:
    return (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high)


def _clamped(name: str, value: Any, rule: Rule) -> Any:
    """The nearer end; what is counted stays a whole number."""
    if rule.low is not None and value < rule.low:
        return math.ceil(rule.low) if name in COUNTS else rule.low
    assert rule.high is not None
    return math.floor(rule.high) if name in COUNTS else rule.high


def _pass_through(query: Query, accepted: AcceptedParameters, sent: dict[str, Any], ignored: list[str]) -> None:
    for name, value in query.passthrough.items():
        if value is None or name in RESERVED:
            continue
        if name in accepted.dropped or (accepted.passthrough is not None and name not in accepted.passthrough):
            ignored.append(name)
        else:
            sent.setdefault(accepted.renamed.get(name, name), value)


def drop_conflicting(fitted: Fitted, query: Query, accepted: AcceptedParameters, first: str, second: str) -> Fitted:
    """`fitted` with only one of two parameters that cannot go together: the first, unless only the second was asked for."""
    names = [accepted.rules[name].name for name in (first, second) if name in accepted.rules]
    if len(names) < 2 or not all(name in fitted.sent for name in names):
        return fitted
    left_out = 0 if first in query.defaults and second not in query.defaults else 1
    ours = (first, second)[left_out]
    sent = {name: value for name, value in fitted.sent.items() if name != names[left_out]}
    adjusted = {name: change for name, change in fitted.adjusted.items() if name != ours}
    return Fitted(sent, fitted.ignored if ours in query.defaults else (*fitted.ignored, ours), adjusted)


def add_required(fitted: Fitted, accepted: AcceptedParameters, name: str, value: Any) -> Fitted:
    """`fitted` with what the provider refuses to go without, reported as adjusted where the caller did not ask for it."""
    rule = accepted.rules.get(name)
    if rule is None or rule.name in fitted.sent:
        return fitted
    return replace(fitted, sent={**fitted.sent, rule.name: value}, adjusted={**fitted.adjusted, name: (None, value)})
