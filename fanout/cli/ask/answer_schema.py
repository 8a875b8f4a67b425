"""`--schema`: answers as JSON of a given shape, requested from the models and checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from fanout.core.errors import explain_missing_extra
from fanout.core.given_text import read_trimmed
from fanout.core.json_text import FENCED_JSON, JsonObject

TYPES = {"str": "string", "string": "string", "int": "integer", "float": "number", "number": "number", "bool": "boolean"}
FIELD = re.compile(r"\s*(?P<name>\w+)(?:\s+(?P<type>[a-z]+))?(?:\s*:\s*(?P<description>[^,]+))?\s*")
NOT_UNDERSTOOD = "a schema is JSON, a file of JSON, or fields such as `name, age int, bio: in one sentence`"


class AnswerSchema:
    """The shape that every answer is to have."""

    def __init__(self, schema: JsonObject) -> None:
        try:
            import jsonschema
        except ImportError:
            raise click.UsageError(f"--schema needs {explain_missing_extra('jsonschema', 'evaluate')}") from None
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise click.UsageError(f"--schema: it is not a JSON Schema: {error.message}") from None
        self.schema = schema
        self._validator: Any = jsonschema.Draft202012Validator(schema)

    @classmethod
    def parse(cls, text: str) -> AnswerSchema:
        """Return the schema that an option names.

        Raises:
            UsageError: it is neither JSON, nor a file, nor a list of fields.
        """
        path = Path(text.removeprefix("@"))
        if text.startswith("@") or text.endswith(".json"):
            try:
                text = read_trimmed(path)
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8"
                raise click.UsageError(f"--schema: `{path}` cannot be read: {reason}") from None
        if not text.lstrip().startswith("{"):
            return cls(_parse_fields(text))
        try:
            return cls(json.loads(text))
        except ValueError as error:
            raise click.UsageError(f"--schema: it is not JSON: {error}") from None

    @property
    def response_format(self) -> JsonObject:
        """The field of a request that asks for it."""
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}

    def find_fault(self, text: str) -> str | None:
        """Return the reason why an answer does not fit; JSON in a code block counts, too."""
        found = FENCED_JSON.search(text)
        for candidate in (text, found[1] if found else ""):
            try:
                value = json.loads(candidate)
            # A model may nest without end; that is a wrong answer, not a crash of the command.
            except (ValueError, RecursionError):
                continue
            error = next(iter(self._validator.iter_errors(value)), None)
            return f"{error.json_path}: {error.message}" if error else None
        return "it is not JSON"


def _parse_fields(text: str) -> JsonObject:
    properties: JsonObject = {}
    for part in text.split(","):
        field = FIELD.fullmatch(part)
        if field is None or field["type"] not in (None, *TYPES):
            raise click.UsageError(f"--schema: `{part.strip()}` is not understood: {NOT_UNDERSTOOD}; types: {', '.join(TYPES)}")
        description = {"description": field["description"].strip()} if field["description"] else {}
        properties[field["name"]] = {"type": TYPES[field["type"] or "str"], **description}
    # All required and nothing else, as OpenAI's strict mode demands of every schema.
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
