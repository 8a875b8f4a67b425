"""Parameters that each wire format accepts: a table for the format, and one for each family of models that differs.

A new format adds a `Table`, a new family of models a line in a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from fanout.providers.parameters import Rule, Table


def _build_table(*rules: Rule, **renamed: Rule) -> Table:
    return MappingProxyType({**{rule.name: rule for rule in rules}, **renamed})


def _remove(table: Table, *names: str) -> Table:
    return MappingProxyType({name: rule for name, rule in table.items() if name not in names})


# Source: https://platform.openai.com/docs/api-reference/completions/create and openai-openapi f85dbe2 for every range below.
OPENAI_TEXT = _build_table(
    Rule("max_tokens"),
    Rule("temperature", 0, 2),
    Rule("top_p", 0, 1),
    Rule("n", 1, 128),
    Rule("best_of", 1, 20, omit=(0,)),
    Rule("seed"),
    Rule("stop", omit=((),), most=4),
    Rule("presence_penalty", -2, 2),
    Rule("frequency_penalty", -2, 2),
    Rule("logit_bias"),
    Rule("logprobs", 0, 5),
    Rule("echo"),
    Rule("suffix"),
    Rule("user"),
)

OPENAI_EMBEDDINGS = _build_table(Rule("user"))


def _expand_chat_logprobs(number: int) -> Mapping[str, object]:
    return {"logprobs": True, "top_logprobs": number} if number else {"logprobs": True}


OPENAI_CHAT = MappingProxyType(
    {**_remove(OPENAI_TEXT, "best_of", "echo", "suffix"), "logprobs": Rule("logprobs", 0, 20, expand=_expand_chat_logprobs)}
)
"""`/chat/completions` of OpenAI's older models and of every host that speaks this format."""

_RENAMED = MappingProxyType({**OPENAI_CHAT, "max_tokens": Rule("max_completion_tokens")})
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs")

OPENAI_FAMILIES: Mapping[str, Table] = {
    "plain": OPENAI_CHAT,
    "renamed": _RENAMED,
    "resting": _remove(_RENAMED, "stop"),
    "reasoning": _remove(_RENAMED, "stop", *_SAMPLING),
    "reasoning with stop": _remove(_RENAMED, *_SAMPLING),
}
"""`find_openai_family` → table. Reasoning models refuse `max_tokens`, and sampling parameters while they reason.

Source: https://platform.openai.com/docs/guides/reasoning; pydantic-ai `profiles/openai.py` (verified live 2026-07).
"""


def _expand_response_logprobs(number: int) -> Mapping[str, object]:
    return {"top_logprobs": number, "include": ["message.output_text.logprobs"]}


_RESPONSES = _build_table(
    Rule("temperature", 0, 2),
    Rule("top_p", 0, 1),
    Rule("user"),
    max_tokens=Rule("max_output_tokens"),
    logprobs=Rule("logprobs", 0, 20, expand=_expand_response_logprobs),
)
_OPENAI_RESPONSES = MappingProxyType({**_RESPONSES, "max_tokens": Rule("max_output_tokens", 16)})
OPENAI_RESPONSES_FAMILIES: Mapping[str, Table] = {
    "elsewhere": _RESPONSES,
    **dict.fromkeys(("plain", "renamed", "resting"), _OPENAI_RESPONSES),
    **dict.fromkeys(("reasoning", "reasoning with stop"), _remove(_OPENAI_RESPONSES, *_SAMPLING, "top_p")),
}
"""`find_openai_family` → table of `/responses`; "elsewhere": hosts other than OpenAI and Azure.

Source: openai 3.51.0, `types/responses/response_create_params.py`; OpenAI refuses `max_output_tokens` below 16.
"""

# First match wins. "on": reasons unless switched off; "off": only when switched on; "always"; "never".
_REASONING = (
    (re.compile(r"gpt-5-chat"), "never"),
    (re.compile(r"gpt-5\.[45]-pro|gpt-5\.3-chat|gpt-5\.2-(pro|chat)|gpt-5\.1-(codex|chat)"), "always"),
    (re.compile(r"gpt-5\.[56]|gpt-6-luna"), "on"),
    (re.compile(r"gpt-5\.[1-4]"), "off"),
    (re.compile(r"gpt-[5-9]|o[2-9]"), "always"),
    (re.compile(r"o1"), "always, with stop"),
)


@lru_cache(maxsize=1024)
def find_openai_reasoning(model: str) -> str | None:
    """Return when one of OpenAI's models reasons; `None`: it never does. Fine-tunes (`ft:…`) behave as their base model."""
    base = model.lower().removeprefix("ft:")
    return next((when for prefix, when in _REASONING if prefix.match(base)), None)


def find_openai_family(model: str, effort: object = None) -> str:
    """Return which of `OPENAI_FAMILIES` one of OpenAI's chat models belongs to, at a given `reasoning_effort`.

    Only for hosts that are OpenAI or Azure: another host's model may have any name (`o1-lookalike` on vLLM takes
    `max_tokens` and a temperature), so there every model is "plain". A gateway in front of OpenAI declares its differences
    in its row: `{"rename": {"max_tokens": "max_completion_tokens"}, "drop": ["temperature", …]}`.
    """
    when = find_openai_reasoning(model)
    if when is None:
        return "plain"
    if when == "never":
        return "renamed"
    if when == "always, with stop":
        return "reasoning with stop"
    resting = effort == "none" if when == "on" else effort in (None, "none") and when == "off"
    return "resting" if resting else "reasoning"


OFF = (-1, 0)
"""Values by which `top_k` limits nothing."""

# Source: anthropic 0.125.0 `types/message_create_params.py`, which describes version 2023-06-01.
ANTHROPIC = _build_table(
    Rule("max_tokens"),
    Rule("temperature", 0, 1),
    Rule("top_p", 0, 1),
    Rule("top_k", omit=OFF),
    stop=Rule("stop_sequences", omit=((),)),
)
ANTHROPIC_FAMILIES: Mapping[str, Table] = {
    "sampling": ANTHROPIC,
    "either": ANTHROPIC,
    "none": _remove(ANTHROPIC, "temperature", "top_p", "top_k"),
}
"""`find_anthropic_family` → table; in "either", `temperature` and `top_p` cannot be sent together."""

# First match wins; a Claude that matches neither is newer, and takes no sampling parameters.
_CLAUDE = (
    (re.compile(r"(?!claude)|claude-(v?[12]|instant|3|(opus|sonnet)-4(-0)?(-20\d{6})?$)"), "sampling"),
    (re.compile(r"claude-(opus|sonnet|haiku)-4-[1-6]\b"), "either"),
)


@lru_cache(maxsize=1024)
def find_anthropic_family(model: str) -> str:
    """Return which of `ANTHROPIC_FAMILIES` a model belongs to.

    Source: https://platform.claude.com/docs/en/models/haiku-5-5/migration-guide and pydantic-ai `profiles/anthropic.py` (none
    from Opus 4.7 and the fifth generation on); https://github.com/BerriAI/litellm/issues/15097 (either, from Opus 4.1 on).
    """
    return next((family for pattern, family in _CLAUDE if pattern.match(model.lower())), "none")


def _expand_gemini_logprobs(number: int) -> Mapping[str, object]:
    return {"responseLogprobs": True, "logprobs": number} if number else {"responseLogprobs": True}


# Source: https://ai.google.dev/api/generate-content#generationconfig; `seed` is an int32, and no value of `topK` turns it off.
GEMINI = _build_table(
    Rule("temperature", 0, 2),
    Rule("seed", -(2**31), 2**31 - 1, exact=True),
    max_tokens=Rule("maxOutputTokens"),
    top_p=Rule("topP", 0, 1),
    top_k=Rule("topK", positive=True),
    n=Rule("candidateCount", 1, 8),
    stop=Rule("stopSequences", omit=((),), most=5),
    presence_penalty=Rule("presencePenalty", -2, 2),
    frequency_penalty=Rule("frequencyPenalty", -2, 2),
    logprobs=Rule("logprobs", 0, 20, expand=_expand_gemini_logprobs),
)
GEMINI_FAMILIES: Mapping[str, Table] = {
    "all": GEMINI,
    "no penalties": _remove(GEMINI, "presence_penalty", "frequency_penalty"),
    "one answer": _remove(GEMINI, "presence_penalty", "frequency_penalty", "n"),
}
_GEMINI = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


@lru_cache(maxsize=1024)
def find_gemini_family(model: str, *, on_vertex: bool = False) -> str:
    """Return which of `GEMINI_FAMILIES` a model belongs to; a name without a version means the newest.

    Source: https://github.com/vercel/ai/issues/8943 (2.5 takes no penalties on the Gemini API), litellm (none from 3 on),
    https://github.com/router-for-me/CLIProxyAPI/pull/879 (3 gives one candidate).
    """
    version = _GEMINI.match(model.lower())
    if version is None or int(version[1]) >= 3:
        return "one answer"
    return "all" if on_vertex or (int(version[1]), int(version[2] or 0)) < (2, 5) else "no penalties"


def _expand_cohere_logprobs(_: int) -> Mapping[str, object]:
    return {"logprobs": True}


# Source: cohere 7.3.1 `v2/client.py`; https://docs.cohere.com/reference/chat. Its penalties exclude each other.
COHERE = _build_table(
    Rule("max_tokens"),
    Rule("temperature", 0, 1),
    Rule("seed", 0, 2**64 - 1, exact=True),
    Rule("presence_penalty", 0, 1, omit=(0,)),
    Rule("frequency_penalty", 0, 1, omit=(0,)),
    top_p=Rule("p", 0.01, 0.99),
    top_k=Rule("k", 0, 500, omit=OFF),
    stop=Rule("stop_sequences", omit=((),), most=5),
    logprobs=Rule("logprobs", 0, 0, expand=_expand_cohere_logprobs),
)


# Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html. Other fields
# belong to the model, in `additionalModelRequestFields`; a row's `rename` puts a parameter there.
CONVERSE = _build_table(
    max_tokens=Rule("maxTokens", 1),
    temperature=Rule("temperature", 0, 1),
    top_p=Rule("topP", 0, 1),
    stop=Rule("stopSequences", omit=((),)),
)
CONVERSE_FAMILIES: Mapping[str, Table] = {
    "sampling": CONVERSE,
    "either": CONVERSE,
    "none": _remove(CONVERSE, "temperature", "top_p"),
}
"""`find_converse_family` → table."""

_BEDROCK_VERSION = re.compile(r"(?<=-20\d{6})-v\d+(:.*)?$")


@lru_cache(maxsize=1024)
def find_converse_family(model: str) -> str:
    """Return which of `CONVERSE_FAMILIES` a model on Bedrock belongs to: Anthropic's differ, under any region."""
    _, vendor, name = model.lower().rpartition("anthropic.")
    return find_anthropic_family(_BEDROCK_VERSION.sub("", name)) if vendor else "sampling"


# Source: https://github.com/ollama/ollama/blob/main/docs/api.md and `api/types.go`, `Options`.
OLLAMA_CHAT = _build_table(
    Rule("temperature", 0),
    Rule("top_p", 0, 1),
    Rule("top_k", 0),
    Rule("seed"),
    Rule("stop", omit=((),)),
    Rule("presence_penalty", -2, 2),
    Rule("frequency_penalty", -2, 2),
    max_tokens=Rule("num_predict"),
    repetition_penalty=Rule("repeat_penalty", positive=True),
    logprobs=Rule("logprobs", 0, 20, expand=_expand_chat_logprobs),
)
OLLAMA_TEXT = MappingProxyType({**OLLAMA_CHAT, "suffix": Rule("suffix", omit=("",))})

# Source: scale-gp 0.1.0a62, `types/shared_params/model_parameters.py`; camelCase is theirs.
SCALE_V4 = _build_table(
    Rule("max_tokens", 1),
    Rule("temperature", 0, 1),
    Rule("presence_penalty"),
    Rule("frequency_penalty"),
    stop=Rule("stop_sequences", omit=((),), most=4),
    top_p=Rule("topP", 0, 1),
    top_k=Rule("topK"),
)


def _expand_llm_engine_logprobs(number: int) -> Mapping[str, object]:
    del number  # the format offers no alternatives
    return {"return_token_log_probs": True}


# Source: scale-llm-engine 0.0.0b45, `data_types/completion.py`, `CompletionSyncV1Request`.
LLM_ENGINE = _build_table(
    Rule("temperature", 0, 1),
    Rule("presence_penalty", 0, 2),
    Rule("frequency_penalty", 0, 2),
    Rule("top_k", -1),
    Rule("top_p", 0, 1),
    max_tokens=Rule("max_new_tokens", 1),
    stop=Rule("stop_sequences", omit=((),), most=4),
    logprobs=Rule("return_token_log_probs", expand=_expand_llm_engine_logprobs),
)
