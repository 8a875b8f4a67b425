"""JSON bytes of answers."""

from __future__ import annotations

from pydantic_core import PydanticSerializationError, to_json

from fanout.core.json_text import replace_surrogates


def encode_json(value: object, *, indent: int | None = None) -> bytes:
    """Return the JSON of an answer.

    Whatever upstreams put into it, it is valid: NaN and infinities become null, lone surrogates U+FFFD.
    """
    try:
        return to_json(value, indent=indent, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(replace_surrogates(value), indent=indent, inf_nan_mode="null")
