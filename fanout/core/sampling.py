"""Sampling parameters as callers write them: what each may be, and everything that is wrong with some of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from fanout.core.faults import Fault, to_faults
from fanout.core.schema import SAMPLING_NAMES
from fanout.core.suggestions import did_you_mean

INT64 = 2**63


def at_most(most: int, what: str) -> BeforeValidator:
    """Looks at the number first: a million items are not validated one by one only to be refused for being many."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"{len(value)} {what} are not allowed: at most {most}")
        return value

    return BeforeValidator(check)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


Stop = Annotated[
    list[str],
    Field(min_length=1, max_length=4),
    at_most(4, "sequences"),
    BeforeValidator(_listed),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4}]}
    ),
]
Bias = Annotated[float, Field(ge=-100, le=100), AfterValidator(lambda bias: int(bias) if bias.is_integer() else bias)]
"""A whole one stays whole on its way: some servers refuse `50.0` for an integer."""
Biases = Annotated[dict[str, Bias], at_most(2048, "tokens")]


class LengthRange(BaseModel):
    """The first of the parameters, apart from the others so that a dialect can put its second name for it right behind it.

    Fields are checked, and named to the caller, in the order of their declaration.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    max_tokens: int | None = Field(None, ge=0)
    """Most tokens to generate; absent: the provider's default."""


class Ranges(LengthRange):
    """Ranges of the parameters of `schema.Sampling`, the widest of all contracts. A dialect narrows what its own limits."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    n: int | None = Field(None, ge=1, le=128)
    best_of: int | None = Field(None, ge=0, le=20)
    """Answers that the provider generates to give back the best; 0: not set."""
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: Stop | None = None
    """Up to four sequences, none of which is in the answer."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Biases | None = None
    """Bias by token id."""
    logprobs: int | None = Field(None, ge=0, le=20)
    """Alternatives to report beside each token."""
    echo: bool | None = None
    """The prompt stands before the answer."""
    suffix: str | None = None
    """Text that follows the answer."""
    user: str | None = Field(None, max_length=256)


def checked(given: Mapping[str, Any], place: str, faults: list[Fault], *, strict: bool = False) -> dict[str, Any]:
    """Sampling parameters as `Sampling` holds them; none where one of them is wrong.

    Args:
        place: what their paths begin with.
        faults: takes what is wrong.
        strict: `"5"` is no number.
    """
    for name in given:
        if name not in SAMPLING_NAMES:
            hint = did_you_mean(name, SAMPLING_NAMES) or f"; known: {', '.join(SAMPLING_NAMES)}"
            faults.append(Fault(f"{place}{name}", f"unknown parameter `{name}`{hint}", "unknown_parameter"))
    known = {name: value for name, value in given.items() if name in SAMPLING_NAMES}
    try:
        ranged = Ranges.model_validate(known, strict=strict)
    except ValidationError as error:
        faults += [Fault(f"{place}{fault.path}", fault.message, fault.kind) for fault in to_faults(error)]
        return {}
    made = {name: getattr(ranged, name) for name in known}
    if made.get("stop") is not None:
        made["stop"] = tuple(made["stop"])
    return made
