"""What each wire format and model family takes, as declared tables, and what becomes of the parameters a caller asked for.

Nothing undeclared is sent: hosts differ in whether they refuse or silently swallow what they do not know, so "ignored" must
come from here and never from an upstream's error. A new format adds a `Table`; a new host only changes one (`accept`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from fanout.config import ParametersRow
from fanout.schema import Fitted, Query


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

ASKS_NOTHING: Mapping[str, tuple[Any, ...]] = {
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

RESERVED = frozenset({"model", "messages", "prompt", "stream"})
"""Passthrough must not change whom is asked, what, or how the answer comes."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A table as one host takes it."""

    rules: Table
    passthrough: frozenset[str] | None
    """The other fields that are taken; `None`: all."""
    dropped: frozenset[str]
    renamed: Mapping[str, str]


def accept(table: Table, overrides: ParametersRow, passthrough: frozenset[str] | None = frozenset()) -> Accepted:
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
    return Accepted(rules, passthrough, frozenset(overrides.drop), dict(overrides.rename))


def _tighter(pick: Callable[[float, float], float], ours: float | None, theirs: float | None) -> float | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return pick(ours, theirs)


def fit(query: Query, accepted: Accepted) -> Fitted:
    """What is sent of what the caller asked for, what is ignored, and what is adjusted (our name → asked, sent).

    A contract's own default (`query.defaults`) is dropped or clamped without a word: the caller did not ask for it.
    """
    sent: dict[str, Any] = {}
    ignored: list[str] = []
    adjusted: dict[str, tuple[Any, Any]] = {}
    for name, value in query.sampling.asked().items():
        rule = accepted.rules.get(name)
        if rule is None or (rule.positive and value <= 0) or (rule.exact and _is_beyond(value, rule)):
            if name not in query.defaults and value not in ASKS_NOTHING.get(name, ()):
                ignored.append(name)
            continue
        if rule.omit and value in rule.omit:
            continue
        if _is_beyond(value, rule):
            asked, value = value, _clamped(value, rule)
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


def _clamped(value: Any, rule: Rule) -> Any:
    """The nearer end; a whole number stays one."""
    if rule.low is not None and value < rule.low:
        return math.ceil(rule.low) if isinstance(value, int) else rule.low
    assert rule.high is not None
    return math.floor(rule.high) if isinstance(value, int) else rule.high


def _pass_through(query: Query, accepted: Accepted, sent: dict[str, Any], ignored: list[str]) -> None:
    for name, value in query.passthrough.items():
        if value is None or name in RESERVED:
            continue
        if name in accepted.dropped or (accepted.passthrough is not None and name not in accepted.passthrough):
            ignored.append(name)
        else:
            sent.setdefault(accepted.renamed.get(name, name), value)


def _table(*rules: Rule, **renamed: Rule) -> Table:
    return MappingProxyType({**{rule.name: rule for rule in rules}, **renamed})


def _without(table: Table, *names: str) -> Table:
    return MappingProxyType({name: rule for name, rule in table.items() if name not in names})


# Source: https://platform.openai.com/docs/api-reference/completions/create and openai-openapi f85dbe2 for every range below.
OPENAI_TEXT = _table(
    Rule("max_tokens"),
    Rule("temperature", 0, 2),
    Rule("top_p", 0, 1),
    Rule("n", 1, 128),
    Rule("best_of", 1, 20, omit=(0,)),
    Rule("seed"),
    Rule("stop", omit=((),)),
    Rule("presence_penalty", -2, 2),
    Rule("frequency_penalty", -2, 2),
    Rule("logit_bias"),
    Rule("logprobs", 0, 5),
    Rule("echo"),
    Rule("suffix"),
    Rule("user"),
)


def _chat_logprobs(number: int) -> Mapping[str, Any]:
    return {"logprobs": True, "top_logprobs": number} if number else {"logprobs": True}


OPENAI_CHAT = MappingProxyType(
    {**_without(OPENAI_TEXT, "best_of", "echo", "suffix"), "logprobs": Rule("logprobs", 0, 20, expand=_chat_logprobs)}
)
"""`/chat/completions` of OpenAI's older models and of every host that speaks its format."""

_RENAMED = MappingProxyType({**OPENAI_CHAT, "max_tokens": Rule("max_completion_tokens")})
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs")

OPENAI_FAMILIES: Mapping[str, Table] = {
    "plain": OPENAI_CHAT,
    "renamed": _RENAMED,
    "resting": _without(_RENAMED, "stop"),
    "reasoning": _without(_RENAMED, "stop", *_SAMPLING),
    "reasoning with stop": _without(_RENAMED, *_SAMPLING),
}
"""`openai_family` → table. Reasoning models refuse `max_tokens`; while they reason, sampling too.

Source: https://platform.openai.com/docs/guides/reasoning; pydantic-ai `profiles/openai.py` (verified live 2026-07).
"""

# First match wins. "on": reasons unless told not to; "off": only when told to; "always"; "never".
_REASONING = (
    (re.compile(r"gpt-5-chat"), "never"),
    (re.compile(r"gpt-5\.[45]-pro|gpt-5\.3-chat|gpt-5\.2-(pro|chat)|gpt-5\.1-(codex|chat)"), "always"),
    (re.compile(r"gpt-5\.[56]|gpt-6-luna"), "on"),
    (re.compile(r"gpt-5\.[1-4]"), "off"),
    (re.compile(r"gpt-[5-9]|o[2-9]"), "always"),
    (re.compile(r"o1"), "always, with stop"),
)


@lru_cache(maxsize=1024)
def openai_reasoning(model: str) -> str | None:
    """When one of OpenAI's own models reasons; `None`: it is no reasoning model. Fine-tunes (`ft:…`) are as their base."""
    base = model.lower().removeprefix("ft:")
    return next((when for prefix, when in _REASONING if prefix.match(base)), None)


def openai_family(model: str, effort: Any = None) -> str:
    """Which of `OPENAI_FAMILIES` a chat model of OpenAI's own belongs to, under the `reasoning_effort` asked for.

    Only for hosts that are OpenAI or Azure: another host's model may bear any name (`o1-lookalike` on vLLM takes
    `max_tokens` and a temperature), so there every model is "plain". A gateway in front of OpenAI declares what differs
    in its row: `{"rename": {"max_tokens": "max_completion_tokens"}, "drop": ["temperature", …]}`.
    """
    when = openai_reasoning(model)
    if when is None:
        return "plain"
    if when == "never":
        return "renamed"
    if when == "always, with stop":
        return "reasoning with stop"
    resting = effort == "none" if when == "on" else effort in (None, "none") and when == "off"
    return "resting" if resting else "reasoning"


def either(fitted: Fitted, query: Query, accepted: Accepted, first: str, second: str) -> Fitted:
    """`fitted` with only one of two parameters that cannot go together: the first, unless only the second was asked for."""
    names = [accepted.rules[name].name for name in (first, second) if name in accepted.rules]
    if len(names) < 2 or not all(name in fitted.sent for name in names):
        return fitted
    left_out = 0 if first in query.defaults and second not in query.defaults else 1
    ours = (first, second)[left_out]
    sent = {name: value for name, value in fitted.sent.items() if name != names[left_out]}
    adjusted = {name: change for name, change in fitted.adjusted.items() if name != ours}
    return Fitted(sent, fitted.ignored if ours in query.defaults else (*fitted.ignored, ours), adjusted)


def required(fitted: Fitted, accepted: Accepted, name: str, value: Any) -> Fitted:
    """`fitted` with what the provider refuses to go without, reported as adjusted where the caller did not ask for it."""
    rule = accepted.rules.get(name)
    if rule is None or rule.name in fitted.sent:
        return fitted
    return replace(fitted, sent={**fitted.sent, rule.name: value}, adjusted={**fitted.adjusted, name: (None, value)})


OFF = (-1, 0)
"""Ways to say that `top_k` limits nothing."""

# Source: anthropic 0.125.0 `types/message_create_params.py`, which describes version 2023-06-01.
ANTHROPIC = _table(
    Rule("max_tokens"),
    Rule("temperature", 0, 1),
    Rule("top_p", 0, 1),
    Rule("top_k", omit=OFF),
    stop=Rule("stop_sequences", omit=((),)),
)
ANTHROPIC_FAMILIES: Mapping[str, Table] = {
    "sampling": ANTHROPIC,
    "either": ANTHROPIC,
    "none": _without(ANTHROPIC, "temperature", "top_p", "top_k"),
}
"""`anthropic_family` → table; in "either", `temperature` and `top_p` cannot go together."""

# First match wins; what is called Claude and is not among them is newer, and takes no sampling parameters.
_CLAUDE = (
    (re.compile(r"(?!claude)|claude-(v?[12]|instant|3|(opus|sonnet)-4(-0)?(-20\d{6})?$)"), "sampling"),
    (re.compile(r"claude-(opus|sonnet|haiku)-4-[1-6]\b"), "either"),
)


@lru_cache(maxsize=1024)
def anthropic_family(model: str) -> str:
    """Which of `ANTHROPIC_FAMILIES` a model belongs to.

    Source: https://platform.claude.com/docs/en/models/haiku-5-5/migration-guide and pydantic-ai `profiles/anthropic.py` (none
    from Opus 4.7 and the fifth generation on); https://github.com/BerriAI/litellm/issues/15097 (either, from Opus 4.1 on).
    """
    return next((family for pattern, family in _CLAUDE if pattern.match(model.lower())), "none")


def _gemini_logprobs(number: int) -> Mapping[str, Any]:
    return {"responseLogprobs": True, "logprobs": number} if number else {"responseLogprobs": True}


# Source: https://ai.google.dev/api/generate-content#generationconfig; `seed` is an int32, and no value of `topK` turns it off.
GEMINI = _table(
    Rule("temperature", 0, 2),
    Rule("seed", -(2**31), 2**31 - 1, exact=True),
    max_tokens=Rule("maxOutputTokens"),
    top_p=Rule("topP", 0, 1),
    top_k=Rule("topK", positive=True),
    n=Rule("candidateCount", 1, 8),
    stop=Rule("stopSequences", omit=((),)),
    presence_penalty=Rule("presencePenalty", -2, 2),
    frequency_penalty=Rule("frequencyPenalty", -2, 2),
    logprobs=Rule("logprobs", 0, 20, expand=_gemini_logprobs),
)
GEMINI_FAMILIES: Mapping[str, Table] = {
    "all": GEMINI,
    "no penalties": _without(GEMINI, "presence_penalty", "frequency_penalty"),
    "one answer": _without(GEMINI, "presence_penalty", "frequency_penalty", "n"),
}
_GEMINI = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


@lru_cache(maxsize=1024)
def gemini_family(model: str, *, on_vertex: bool = False) -> str:
    """Which of `GEMINI_FAMILIES` a model belongs to; a name without a version means the newest.

    Source: https://github.com/vercel/ai/issues/8943 (2.5 takes no penalties on the Gemini API), litellm (none from 3 on),
    https://github.com/router-for-me/CLIProxyAPI/pull/879 (3 gives one candidate).
    """
    version = _GEMINI.match(model.lower())
    if version is None or int(version[1]) >= 3:
        return "one answer"
    return "all" if on_vertex or (int(version[1]), int(version[2] or 0)) < (2, 5) else "no penalties"


def _cohere_logprobs(_: int) -> Mapping[str, Any]:
    return {"logprobs": True}


# Source: cohere 7.3.1 `v2/client.py`; https://docs.cohere.com/reference/chat. Its penalties exclude each other.
COHERE = _table(
    Rule("max_tokens"),
    Rule("temperature", 0, 1),
    Rule("seed", 0, 2**64 - 1, exact=True),
    Rule("presence_penalty", 0, 1, omit=(0,)),
    Rule("frequency_penalty", 0, 1, omit=(0,)),
    top_p=Rule("p", 0.01, 0.99),
    top_k=Rule("k", 0, 500, omit=OFF),
    stop=Rule("stop_sequences", omit=((),)),
    logprobs=Rule("logprobs", 0, 0, expand=_cohere_logprobs),
)


# Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html. All else is the
# model's own, in `additionalModelRequestFields`; a row's `rename` puts a parameter there.
CONVERSE = _table(
    max_tokens=Rule("maxTokens", 1),
    temperature=Rule("temperature", 0, 1),
    top_p=Rule("topP", 0, 1),
    stop=Rule("stopSequences", omit=((),)),
)
CONVERSE_FAMILIES: Mapping[str, Table] = {
    "sampling": CONVERSE,
    "either": CONVERSE,
    "none": _without(CONVERSE, "temperature", "top_p"),
}
"""`converse_family` → table."""

_BEDROCK_VERSION = re.compile(r"(?<=-20\d{6})-v\d+(:.*)?$")


@lru_cache(maxsize=1024)
def converse_family(model: str) -> str:
    """Which of `CONVERSE_FAMILIES` a model on Bedrock belongs to: Anthropic's differ, their names stand behind a region's."""
    _, vendor, name = model.lower().rpartition("anthropic.")
    return anthropic_family(_BEDROCK_VERSION.sub("", name)) if vendor else "sampling"


# Source: https://github.com/ollama/ollama/blob/main/docs/api.md and `api/types.go`, `Options`.
OLLAMA_CHAT = _table(
    Rule("temperature", 0),
    Rule("top_p", 0, 1),
    Rule("top_k", 0),
    Rule("seed"),
    Rule("stop", omit=((),)),
    Rule("presence_penalty", -2, 2),
    Rule("frequency_penalty", -2, 2),
    max_tokens=Rule("num_predict"),
    repetition_penalty=Rule("repeat_penalty", positive=True),
    logprobs=Rule("logprobs", 0, 20, expand=_chat_logprobs),
)
OLLAMA_TEXT = MappingProxyType({**OLLAMA_CHAT, "suffix": Rule("suffix", omit=("",))})

# Source: scale-gp 0.1.0a62, `types/shared_params/model_parameters.py`; camelCase is theirs.
SCALE_V4 = _table(
    Rule("max_tokens", 1),
    Rule("temperature", 0, 1),
    Rule("presence_penalty"),
    Rule("frequency_penalty"),
    stop=Rule("stop_sequences", omit=((),)),
    top_p=Rule("topP", 0, 1),
    top_k=Rule("topK"),
)


def _token_log_probs(number: int) -> Mapping[str, Any]:
    del number  # no alternatives are to be had
    return {"return_token_log_probs": True}


# Source: scale-llm-engine 0.0.0b45, `data_types/completion.py`, `CompletionSyncV1Request`.
LLM_ENGINE = _table(
    Rule("temperature", 0, 1),
    Rule("presence_penalty", 0, 2),
    Rule("frequency_penalty", 0, 2),
    Rule("top_k", -1),
    Rule("top_p", 0, 1),
    max_tokens=Rule("max_new_tokens", 1),
    stop=Rule("stop_sequences", omit=((),)),
    logprobs=Rule("return_token_log_probs", expand=_token_log_probs),
)
