"""Fitting of a caller's parameters to a provider, by the rules of a table: each is sent, ignored or adjusted.

Nothing undeclared is sent: some hosts refuse unknown parameters, others silently ignore them, so "ignored" must be decided
here and never by an upstream's error. The formats' tables are in `parameter_tables.py`; a host only changes one (`accept`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fanout.config.providers_file import ParametersRow
from fanout.core.json_text import JsonObject
from fanout.core.sampling import Sampling
from fanout.core.schema import FittedParameters, Query


@dataclass(frozen=True, slots=True)
class Rule:
    """The way of one of our parameters upstream."""

    name: str
    """The provider's name for it."""
    low: float | None = None
    high: float | None = None
    """Values outside [`low`, `high`] are sent as the nearer end, and reported."""
    omit: tuple[object, ...] = ()
    """Values that this format expresses by leaving the parameter out (the end of an open interval, "not set")."""
    positive: bool = False
    """0 and less have no meaning here, and no value comes near them: they are ignored, not clamped."""
    exact: bool = False
    """The nearer end would mean something else (another seed): values outside are ignored, not clamped."""
    most: int | None = None
    """Items that a list may have; those beyond are cut, and reported."""
    expand: Callable[[int], Mapping[str, object]] | None = None
    """Returns the provider's fields, where one of our parameters becomes several."""


Table = Mapping[str, Rule]
"""Our name of a parameter → its rule; a parameter without a rule is ignored."""

NO_EFFECT_VALUES: Mapping[str, tuple[object, ...]] = {
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
"""Values that lose nothing if the parameter is left out, so that is not reported: many clients always send `n: 1`."""

INTEGERS = frozenset({"max_tokens", "top_k", "n", "best_of", "logprobs"})
"""Parameters that are whole numbers at every provider: clamping keeps them so."""

RESERVED = frozenset({"model", "messages", "prompt", "stream"})
"""Passthrough must not change the model, the prompt, or the form of the answer."""


@dataclass(slots=True, eq=False)
class AcceptedParameters:
    """A format's table with the changes of one host."""

    rules: Table
    passthrough: frozenset[str] | None
    """Names of the other fields that the host accepts; `None`: all."""
    dropped: frozenset[str]
    renamed: Mapping[str, str]
    last: tuple[Sampling, frozenset[str], FittedParameters] | None = None
    """Parameters fitted last: the models of a request follow each other, and most have the same."""


def accept(table: Table, overrides: ParametersRow, passthrough: frozenset[str] | None = frozenset()) -> AcceptedParameters:
    """Apply a host's differences to its format's table; once per provider, so that `fit` stays fast.

    A name in `overrides.rename` or `.clamp` is accepted even if the table lacks it: `{"rename": {"top_k": "top_k"}}`
    declares that this host knows `top_k`.
    """
    rules = dict(table)
    for name, upstream in overrides.rename.items():
        rules[name] = replace(rules.get(name, Rule(name)), name=upstream, expand=None)
    for name, (low, high) in overrides.clamp.items():
        rule = rules.get(name, Rule(name))
        rules[name] = replace(rule, low=_combine(max, rule.low, low), high=_combine(min, rule.high, high))
    if overrides.max_stops is not None and "stop" in rules:
        rules["stop"] = replace(rules["stop"], most=overrides.max_stops)
    for name in overrides.drop:
        rules.pop(name, None)
    return AcceptedParameters(rules, passthrough, frozenset(overrides.drop), dict(overrides.rename))


def _combine(pick: Callable[[float, float], float], ours: float | None, theirs: float | None) -> float | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return pick(ours, theirs)


def fit(query: Query, accepted: AcceptedParameters) -> FittedParameters:
    """Return what is sent of the caller's parameters, what is ignored, and what is adjusted (our name → wanted, sent).

    A default of the endpoint's contract (`query.defaults`) is dropped or clamped silently: the caller did not choose it.
    """
    sampling = query.sampling
    if (last := accepted.last) and last[0] is sampling and last[1] is query.defaults and not query.passthrough:
        return last[2]
    fitted = _fit(query, accepted)
    # Texts and lists, which callers size, are not kept; and without tokens the prompt counts, too.
    is_small = sampling.stop is None and sampling.logit_bias is None and sampling.suffix is None
    if is_small and not query.passthrough and sampling.max_tokens != 0:
        accepted.last = sampling, query.defaults, fitted
    return fitted


def _fit(query: Query, accepted: AcceptedParameters) -> FittedParameters:
    sent: JsonObject = {}
    ignored: list[str] = []
    adjusted: dict[str, tuple[object, object]] = {}
    for name, value in query.sampling.as_dict().items():
        rule = accepted.rules.get(name)
        if rule is None or (rule.positive and value <= 0) or (rule.exact and _is_beyond(value, rule)):
            if name not in query.defaults and value not in NO_EFFECT_VALUES.get(name, ()):
                ignored.append(name)
            continue
        if rule.omit and value in rule.omit:
            continue
        if _is_beyond(value, rule):
            wanted, value = value, _clamp(name, value, rule)
            if name not in query.defaults:
                adjusted[name] = (wanted, value)
            if value in rule.omit:  # clamping may have reached a value that is expressed by omission
                continue
        elif rule.most is not None and len(value) > rule.most:
            adjusted[name], value = (value, value[: rule.most]), value[: rule.most]
        if rule.expand is None:
            sent[rule.name] = value
        else:
            sent.update(rule.expand(value))
    if query.passthrough:
        _pass_through(query, accepted, sent, ignored)
    fitted = FittedParameters(sent, tuple(ignored), adjusted)
    return _fit_no_tokens(query, fitted) if query.sampling.max_tokens == 0 else fitted


def _fit_no_tokens(query: Query, fitted: FittedParameters) -> FittedParameters:
    """Report what `max_tokens: 0` loses. Fanout itself answers it, unless the model must read the prompt."""
    adjusted = {name: change for name, change in fitted.adjusted.items() if name != "max_tokens"}
    cut_token = len(adjusted) < len(fitted.adjusted)
    ignored = [name for name in fitted.ignored if name != "max_tokens"]
    if not query.sampling.echo:
        return replace(fitted, ignored=tuple(ignored), adjusted=adjusted)
    # Which text the token is, and is to be cut, only its log probability tells where the prompt is not a text.
    is_cut = not cut_token or query.prompt is not None or query.sampling.logprobs is not None
    if query.reads_prompt and is_cut and not {"echo", "logprobs"}.intersection(ignored):
        return replace(fitted, adjusted=adjusted, cut_token=cut_token)
    lost = {name for name in ("echo", "logprobs") if getattr(query.sampling, name) is not None}
    if query.prompt is not None:  # a text is known without the model
        lost.discard("echo")
        ignored = [name for name in ignored if name != "echo"]
    return replace(fitted, ignored=tuple(dict.fromkeys((*ignored, *sorted(lost)))), adjusted=adjusted)


def _is_beyond(value: float, rule: Rule) -> bool:
    return (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high)


def _clamp(name: str, value: float, rule: Rule) -> float:
    """Return the nearer end of the rule's range."""
    if rule.low is not None and value < rule.low:
        return math.ceil(rule.low) if name in INTEGERS else rule.low
    assert rule.high is not None
    return math.floor(rule.high) if name in INTEGERS else rule.high


def _pass_through(query: Query, accepted: AcceptedParameters, sent: JsonObject, ignored: list[str]) -> None:
    for name, value in query.passthrough.items():
        if value is None or name in RESERVED:  # null means "not set" in every dialect
            continue
        if name in accepted.dropped or (accepted.passthrough is not None and name not in accepted.passthrough):
            ignored.append(name)
        else:
            # A parameter of ours that has been sent under this name wins over the caller's own field.
            sent.setdefault(accepted.renamed.get(name, name), value)


def drop_conflicting(
    fitted: FittedParameters, query: Query, accepted: AcceptedParameters, first: str, second: str
) -> FittedParameters:
    """Drop one of two parameters that cannot be sent together: the second, unless the first is only a default."""
    names = [accepted.rules[name].name for name in (first, second) if name in accepted.rules]
    if len(names) < 2 or not all(name in fitted.sent for name in names):
        return fitted
    place = 0 if first in query.defaults and second not in query.defaults else 1
    dropped = (first, second)[place]
    sent = {name: value for name, value in fitted.sent.items() if name != names[place]}
    adjusted = {name: change for name, change in fitted.adjusted.items() if name != dropped}
    return FittedParameters(sent, fitted.ignored if dropped in query.defaults else (*fitted.ignored, dropped), adjusted)


def add_default(fitted: FittedParameters, accepted: AcceptedParameters, name: str, value: float) -> FittedParameters:
    """Add a parameter that the provider requires, reported as adjusted, where the caller set none."""
    rule = accepted.rules.get(name)
    if rule is None or rule.name in fitted.sent:
        return fitted
    return replace(fitted, sent={**fitted.sent, rule.name: value}, adjusted={**fitted.adjusted, name: (None, value)})
