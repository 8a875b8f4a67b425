"""Saved questions: a prompt with `{{input}}` and other variables, and the options that belong to it."""

from __future__ import annotations

import json
import os
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path

import click
from pydantic import BaseModel, ConfigDict, ValidationError

from fanout.cli import private_files
from fanout.config.environment import find_config_folder
from fanout.core.errors import RequestError
from fanout.core.faults import to_faults
from fanout.core.json_text import JsonObject
from fanout.core.suggestions import did_you_mean
from fanout.jobs.template import PromptTemplate

NAME = re.compile(r"[\w-]{1,64}")
INPUT = "input"
"""Variable that stands for the prompt of the command: its argument, standard input and text files."""


class AskTemplate(BaseModel):
    """A saved question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = None
    """Text with variables such as `{{input}}`; absent: the command's prompt alone."""
    models: tuple[str, ...] = ()
    system: str | None = None
    options: dict[str, object] = {}
    """As `-o` takes them."""
    answer_schema: dict[str, object] | None = None

    def render(self, text: str, values: Mapping[str, str]) -> str:
        """Return the prompt with its variables' values; without `{{input}}` the text stands below it.

        Raises:
            UsageError: a variable has no value, or a value no variable.
        """
        if self.prompt is None:
            return text
        if "{{" not in self.prompt:
            variables: tuple[str, ...] = ()
        else:
            try:
                variables = PromptTemplate(self.prompt).variables
            except RequestError as error:
                raise click.UsageError(f"-t: {error}") from None
        if lacking := [name for name in variables if name != INPUT and name not in values]:
            raise click.UsageError(f"-t: {', '.join(f'`{name}`' for name in lacking)} has no value: -p {lacking[0]}=…")
        if extra := [name for name in values if name not in variables]:
            known = did_you_mean(extra[0], variables) or f"; it has: {', '.join(variables) or 'none'}"
            raise click.UsageError(f"-p: the template has no variable `{extra[0]}`{known}")
        prompt = PromptTemplate(self.prompt).render({INPUT: text, **values}) if variables else self.prompt
        return prompt if INPUT in variables or not text else f"{prompt}\n\n{text}"


def find_folder() -> Path:
    """Return the folder of the user's templates, which need not exist."""
    folder = find_config_folder(os.environ)
    if folder is None:
        raise click.UsageError("there is no home folder for templates: set XDG_CONFIG_HOME")
    return folder / "templates"


def list_templates() -> list[str]:
    """Return the names of the saved templates."""
    try:
        return sorted(path.stem for path in find_folder().glob("*.json"))
    except OSError:
        # Completion calls this on every Tab: an unreadable folder must not print a traceback into the line.
        return []


def find_path(name: str) -> Path:
    """Return the file of a template of this name; `UsageError`: that is not a name."""
    # The name becomes a path: `../keys` must not.
    if not NAME.fullmatch(name):
        raise click.UsageError(f"`{name}` is not a template's name: letters, digits, `_` and `-`")
    return find_folder() / f"{name}.json"


def read_template(name: str) -> AskTemplate:
    """Return a saved template.

    Raises:
        UsageError: there is none of this name, or its file is not valid.
    """
    path = find_path(name)
    try:
        return AskTemplate.model_validate_json(path.read_bytes().removeprefix(BOM_UTF8))
    except FileNotFoundError:
        known = list_templates()
        hint = did_you_mean(name, known) or (f"; there are: {', '.join(known)}" if known else "; `fanout ask --save` makes one")
        raise click.UsageError(f"there is no template `{name}`{hint}") from None
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise click.UsageError("\n".join(f"{path}: {fault}" for fault in to_faults(error, AskTemplate))) from None


def save_template(name: str, template: AskTemplate) -> Path:
    """Write a template for its owner alone, and return its file."""
    path = find_path(name)
    content: JsonObject = template.model_dump(mode="json", exclude_defaults=True)
    try:
        private_files.write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error
    return path
