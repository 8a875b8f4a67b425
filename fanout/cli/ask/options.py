"""The options of a question, which `fanout ask` and `fanout chat` share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic_core import from_json

from fanout.cli.ask.answer_schema import AnswerSchema
from fanout.cli.ask.location import AskLocation
from fanout.cli.ask.question import AskQuestion
from fanout.cli.ask.templates import AskTemplate, read_template
from fanout.cli.completion import complete_models, complete_questions, complete_templates
from fanout.cli.model_choice import split_words
from fanout.cli.options import add_options, model_option, timeout_option, with_sampling, with_settings
from fanout.core.json_text import JsonObject
from fanout.core.json_values import TOO_LARGE, find_infinite
from fanout.core.sampling import SAMPLING_NAMES
from fanout.core.suggestions import find_misspelt

SAMPLING_OPTIONS = ("max_tokens", "temperature", "top_p", "seed", "stop", "n")
"""Parameters with options of their own."""


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """The options of a question; a template's are in their places already."""

    location: AskLocation
    words: Sequence[str]
    """As `-m` took them."""
    system: str | None
    parameters: JsonObject
    extra_body: JsonObject
    timeout_s: float | None
    template: AskTemplate
    values: dict[str, str]
    """Of the template's variables."""
    schema: AnswerSchema | None
    past_id: str | None
    """Question to go on from."""
    is_logging: bool
    raw: bool
    plain: bool

    def build_question(self, models: Sequence[str], content: Any) -> AskQuestion:
        """Return the question with these models and this content."""
        return AskQuestion(tuple(models), content, self.system, dict(self.parameters), dict(self.extra_body), self.timeout_s)


def with_question(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a question, passed to the command as `given`."""

    @functools.wraps(command)
    def wrapper(
        config_file: Path | None,
        env_file: Path | None,
        server: str | None,
        models: tuple[str, ...],
        system: str | None,
        fields: JsonObject,
        timeout_s: float | None,
        template: str | None,
        values: dict[str, str],
        schema: str | None,
        is_continued: bool,
        past_id: str | None,
        no_log: bool,
        raw: bool,
        plain: bool,
        **options: Any,
    ) -> None:
        if models and not split_words(models):
            raise click.UsageError("-m names no model")
        saved = read_template(template) if template else AskTemplate()
        # Ignored, they would look as if they had been sent.
        if values and not template:
            raise click.UsageError("-p gives a template's variables their values: name one with -t")
        own = {name: options.pop(name) for name in SAMPLING_OPTIONS}
        named = {
            name: list(value) if isinstance(value, tuple) else value for name, value in own.items() if value not in (None, ())
        }
        # The nearest wins: an option of its own, then `-o`, then the template.
        fields = {**saved.options, **fields, **named}
        answer_schema = (
            AnswerSchema.parse(schema) if schema else AnswerSchema(saved.answer_schema) if saved.answer_schema else None
        )
        extra_body = {name: value for name, value in fields.items() if name not in SAMPLING_NAMES}
        given = GivenOptions(
            location=AskLocation(config_file, env_file, server),
            words=models or saved.models,
            system=system if system is not None else saved.system,
            parameters={name: value for name, value in fields.items() if name in SAMPLING_NAMES},
            extra_body={**extra_body, **({"response_format": answer_schema.response_format} if answer_schema else {})},
            timeout_s=timeout_s,
            template=saved,
            values=values,
            schema=answer_schema,
            past_id=past_id or ("last" if is_continued else None),
            is_logging=not no_log,
            raw=raw,
            plain=plain,
        )
        command(given=given, **options)

    return add_options(wrapper, *_list_options())


def _list_options() -> list[Callable[..., Any]]:
    return [
        model_option(complete_models),
        with_sampling,
        click.option("-n", "n", type=click.IntRange(1, 128), help="Number of samples from each model."),
        click.option(
            "-o",
            "--option",
            "fields",
            metavar="NAME=VALUE",
            multiple=True,
            callback=parse_fields,
            help="Any other parameter, or a field that only some providers know; a value may be JSON. May be repeated.",
        ),
        click.option("-t", "--template", shell_complete=complete_templates, help="Ask a saved question: `fanout templates`."),
        click.option(
            "-p",
            "--param",
            "values",
            metavar="NAME=VALUE",
            multiple=True,
            callback=parse_values,
            help="With -t: the value of one of its variables.",
        ),
        click.option("--schema", metavar="SCHEMA", help="JSON that the answers must fit: JSON, @FILE, or `name, age int`."),
        click.option("-c", "--continue", "is_continued", is_flag=True, help="Go on from the last question."),
        click.option(
            "--from",
            "past_id",
            metavar="ID",
            help="Go on from another question of `fanout log`.",
            shell_complete=complete_questions,
        ),
        timeout_option("Seconds for all of them together."),
        click.option("--raw", is_flag=True, help="Show the answers' text instead of rendering its Markdown."),
        click.option("--plain", "--no-box", is_flag=True, help="Show the answers one below the other, to be copied."),
        click.option("--no-log", is_flag=True, help="Do not keep the question and its answers for `fanout log`."),
        with_settings,
        click.option("--server", help="Address of a running server; without it, this command calls the providers itself."),
    ]


def parse_fields(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> JsonObject:
    """Return the parameters in `NAME=VALUE` options; a value that is not JSON is a text."""
    fields: JsonObject = {}
    for name, text in map(_split, given):
        name = name.replace("-", "_")
        meant = find_misspelt(name, frozenset(SAMPLING_NAMES)) if name not in SAMPLING_NAMES else None
        if meant and meant != name:
            raise click.BadParameter(f"unknown parameter `{name}`; did you mean `{meant}`?")
        try:
            fields[name] = from_json(text, allow_inf_nan=False)
        except ValueError:
            # A text needs no quotes in a shell; JSON that is broken is taken as one, too.
            fields[name] = text
        if any(find_infinite(fields[name])):
            raise click.BadParameter(f"`{name}` {TOO_LARGE}")
    return fields


def parse_values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Return the values in `NAME=VALUE` options."""
    return dict(map(_split, given))


def _split(given: str) -> tuple[str, str]:
    name, equals, text = given.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"`{given}` is not allowed: NAME=VALUE")
    return name.strip(), text
