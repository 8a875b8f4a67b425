"""Configurations of promptfoo: prompts × tests as rows, their assertions as a column, and what is not taken, by name.

Source: https://www.promptfoo.dev/docs/configuration/reference/
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from fanout.core.errors import Fault, RequestError, explain_missing_extra
from fanout.core.given_text import read_trimmed
from fanout.core.json_text import JsonObject

MAX_CONFIG_BYTES = 64 * 2**20
VARIABLE = re.compile(r"\{\{-?\s*([A-Za-z_][\w.]*)\s*-?\}\}")
OTHER_TEMPLATE = re.compile(r"\{%|\{\{[^}]*\|")
PROVIDERS: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gemini",
    "mistral": "mistral",
    "groq": "groq",
    "openrouter": "openrouter",
    "cohere": "cohere",
    "ollama": "ollama",
    "deepseek": "deepseek",
    "togetherai": "together",
    "fireworks": "fireworks",
    "cerebras": "cerebras",
    "xai": "xai",
}
"""promptfoo's name of a provider → the one here."""
WAYS = frozenset({"chat", "completion", "messages", "responses"})
"""Second parts of `openai:chat:gpt-4o`, which name an endpoint and not the model."""
PARAMETERS = ("temperature", "max_tokens", "top_p", "seed", "stop")
RUBRIC = "llm-rubric"
TAKEN = frozenset({"description", "prompts", "providers", "targets", "tests", "defaultTest"})
TAKEN_OF_TEST = frozenset({"vars", "assert", "description", "threshold", "metadata"})


@dataclass(slots=True)
class ImportedConfig:
    """A job that a configuration describes."""

    models: list[JsonObject] = field(default_factory=list)
    rows: list[JsonObject] = field(default_factory=list)
    has_rubrics: bool = False
    not_taken: Counter[str] = field(default_factory=Counter)
    """What is left out, each with how often."""


def read_promptfoo(path: Path) -> ImportedConfig:
    """Return the job of a configuration.

    Raises:
        RequestError: it is none, or needs what is not known here.
        OSError: it, or a file that it names, cannot be read.
    """
    config = _load(path)
    if not isinstance(config, Mapping) or "prompts" not in config:
        raise RequestError([Fault(path.name, "has no `prompts`: is it a configuration of promptfoo?")])
    found = ImportedConfig()
    for name in config.keys() - TAKEN:
        found.not_taken[f"`{name}`"] += 1
    found.models += _list_models(config.get("providers", config.get("targets")) or [], found)
    prompts = list(_list_prompts(config["prompts"], path.parent))
    default = config.get("defaultTest") or {}
    tests = _load_tests(config.get("tests") or [{}], path.parent)
    for name in {name for test in (default, *tests) for name in test.keys() - TAKEN_OF_TEST}:
        found.not_taken[f"`{name}` of tests"] += 1
    for number, test in enumerate(tests):
        for values in _expand({**(default.get("vars") or {}), **(test.get("vars") or {})}):
            declared = [*(default.get("assert") or ()), *(test.get("assert") or ())]
            assertions = list(_list_assertions(declared, values, found))
            threshold = test.get("threshold", default.get("threshold"))
            for label, prompt in prompts:
                row = _build_row(number, label, prompt, values, assertions, threshold)
                # A test without assertions passes there; one whose assertions are not taken is another matter.
                found.rows.append(row if declared else {**row, "assert": []})
    found.has_rubrics = any("rubric" in row for row in found.rows)
    return found


def _load(path: Path) -> Any:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise RequestError([Fault(path.name, f"is larger than {MAX_CONFIG_BYTES:,} bytes")])
    text = read_trimmed(path)
    try:
        if path.suffix == ".json":
            return json.loads(text)
        import yaml

        from fanout.evaluate.scorers.promptfoo_texts import load_yaml
    except ImportError as error:
        sentence = f"needs {explain_missing_extra(error.name or 'yaml', 'evaluate')}"
        raise RequestError([Fault(path.name, sentence)]) from None
    except ValueError as error:
        raise RequestError([Fault(path.name, f"is not JSON: {str(error)[:100]}")]) from None

    try:
        return load_yaml(text, has_references=True)
    except yaml.YAMLError as error:
        raise RequestError([Fault(path.name, f"is not YAML: {str(error)[:200]}")]) from None


def _list_models(providers: Any, found: ImportedConfig) -> Iterator[JsonObject]:
    for provider in providers if isinstance(providers, list) else [providers]:
        if isinstance(provider, Mapping) and "id" not in provider and len(provider) == 1:
            name, options = next(iter(provider.items()))
            options = {**(options or {}), "id": name}
        else:
            options = dict(provider) if isinstance(provider, Mapping) else {"id": provider}
        host, _, rest = str(options.get("id")).partition(":")
        way, _, model = rest.partition(":")
        upstream = model if way in WAYS and model else rest
        if host not in PROVIDERS or not upstream:
            found.not_taken[f"provider `{options.get('id')}`"] += 1
            continue
        settings = options.get("config") or {}
        for name in settings.keys() - set(PARAMETERS):
            found.not_taken[f"`{name}` of providers"] += 1
        given = {name: settings[name] for name in PARAMETERS if settings.get(name) is not None}
        label = {"label": str(options["label"])} if options.get("label") else {}
        yield {"model": f"{PROVIDERS[host]}/{upstream}", **label, **given}


def _list_prompts(prompts: Any, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield label and text of each prompt."""
    for prompt in prompts if isinstance(prompts, list) else [prompts]:
        raw = prompt.get("raw", prompt.get("id")) if isinstance(prompt, Mapping) else prompt
        text, label = str(raw), prompt.get("label") if isinstance(prompt, Mapping) else None
        if text.startswith("file://"):
            path = folder / text.removeprefix("file://")
            if path.suffix not in (".txt", ".json", ".md"):
                raise RequestError([Fault("prompts", f"`{text}` is not text: .txt, .md and .json can be read")])
            # promptfoo parts prompts at such a line, whichever system wrote it.
            text = read_trimmed(path).replace("\r\n", "\n")
            parts = text.split("\n---\n") if path.suffix == ".txt" else [text]
            for part in parts:
                yield str(label or path.name), part.strip()
        else:
            yield str(label or text[:80]), text


def _load_tests(tests: Any, folder: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for test in tests if isinstance(tests, list) else [tests]:
        if isinstance(test, str) and test.startswith("file://"):
            path = folder / test.removeprefix("file://")
            if path.suffix not in (".yaml", ".yml", ".json"):
                raise RequestError([Fault("tests", f"`{test}` is not read: .yaml and .json are")])
            loaded = _load(path)
            found += loaded if isinstance(loaded, list) else [loaded]
        elif isinstance(test, Mapping):
            found.append(test)
        else:
            raise RequestError([Fault("tests", f"`{str(test)[:80]}` is not a test")])
    return found


def _expand(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the variables of each test that a test stands for: one for each combination of the values in its lists."""
    names = list(values)
    for chosen in product(*(value if isinstance(value, list) else [value] for value in values.values())):
        yield dict(zip(names, chosen, strict=True))


def _list_assertions(assertions: Sequence[Any], values: Mapping[str, Any], found: ImportedConfig) -> Iterator[JsonObject]:
    from fanout.evaluate.scorers.assertions import is_known

    for assertion in assertions:
        type_ = str(assertion.get("type")) if isinstance(assertion, Mapping) else str(assertion)
        value = assertion.get("value") if isinstance(assertion, Mapping) else None
        is_elsewhere = isinstance(value, str) and value.startswith("file://")
        is_plain = isinstance(assertion, Mapping) and "transform" not in assertion and not is_elsewhere
        if is_plain and (is_known(type_) or type_ == RUBRIC):
            kept = {name: assertion[name] for name in ("threshold", "weight") if name in assertion}
            yield {"type": type_, "value": _render_value(value, values), **kept}
        else:
            found.not_taken[f"assertion `{type_}`"] += 1


def _build_row(
    number: int,
    label: str,
    prompt: str,
    values: Mapping[str, Any],
    assertions: Sequence[JsonObject],
    threshold: float | None,
) -> JsonObject:
    rendered = _render(prompt, values)
    rubrics = [str(one["value"]) for one in assertions if one["type"] == RUBRIC]
    checked = [one for one in assertions if one["type"] != RUBRIC]
    row: JsonObject = {"test": number, "prompt_label": label, "vars": dict(values)}
    messages = _parse_messages(rendered)
    row |= {"prompt": rendered} if messages is None else {"messages": messages}
    if checked:
        row["assert"] = checked
    if threshold is not None:
        row["assert_threshold"] = threshold
    if rubrics:
        row["rubric"] = "\n".join(rubrics)
    return row


def _parse_messages(text: str) -> list[JsonObject] | None:
    """Return the messages of a prompt that is a chat in JSON."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    is_chat = isinstance(found, list) and all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in found)
    return found if is_chat and found else None


def _render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template with its variables; of Nunjucks nothing else is known."""
    if OTHER_TEMPLATE.search(template):
        sentence = f"`{template[:60]}` uses filters or statements of Nunjucks: only variables, `{{{{name}}}}`, are known"
        raise RequestError([Fault("prompts", sentence)])

    def replace(match: re.Match[str]) -> str:
        value: Any = values
        for part in match[1].split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        # As Nunjucks: a variable that is not there is empty.
        return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return VARIABLE.sub(replace, template)


def _render_value(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _render(value, values)
    return [_render_value(one, values) for one in value] if isinstance(value, list) else value
