"""Sampling parameters: the one declaration of their names, types, ranges and descriptions.

Bodies that take some of them are made of `Sampling` by `core.sampling_fields`, the command line's options and the documents by
`range_of` and `DESCRIPTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, ValidationInfo, WithJsonSchema
from pydantic.fields import FieldInfo
from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.long_lists import IN_STEPS
from fanout.core.value_type import value_type

INT64 = 2**63
"""Bound of the integers that every server can parse."""
MAX_STOPS = 64
"""Stop sequences of a request. Providers' own limits are in their tables; some contracts publish a lower limit."""
Range = tuple[float | None, float | None]
"""Lowest and highest value; `None`: no end."""


def at_most(most: int, what: str) -> BeforeValidator:
    """Return a validator that counts first, so that a million items are refused before each of them is validated."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"{len(value)} {what} are not allowed: at most {most}")
        return value

    return BeforeValidator(check)


def _to_list(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be text, or a list of texts")  # noqa: TRY004 - only this one is a wrong field to pydantic
    return [value] if isinstance(value, str) else list(value)


def _up_to_stops(most: int) -> GetPydanticSchema:
    """Return the schema of at most `most` stop sequences; a single text becomes a list."""
    array = {"type": "array", "items": {"type": "string"}, "maxItems": most}
    taken = Annotated[
        list[str],
        at_most(most, "sequences"),
        BeforeValidator(_to_list),  # runs before the count above: a text is one sequence, not as many as it has letters
        WithJsonSchema({"anyOf": [{"type": "string"}, array]}),
    ]
    return GetPydanticSchema(lambda _, handler: handler(taken))


Bias = Annotated[float, Field(ge=-100, le=100), AfterValidator(lambda bias: int(bias) if bias.is_integer() else bias)]
"""Whole numbers stay integers, because some servers refuse `50.0`."""
_BiasDict = Annotated[dict[str, Bias], IN_STEPS, at_most(2048, "tokens")]
Biases = Annotated[Mapping[str, float], GetPydanticSchema(lambda _, handler: handler(_BiasDict))]


@value_type(frozen=True, slots=True)
class Sampling:
    """Every sampling parameter of the contracts, in the widest range of any; `None`: the caller did not set it."""

    max_tokens: Annotated[int | None, Field(ge=0, lt=INT64, description="Maximum number of tokens to generate.")] = None
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="Higher is more varied; 0 always takes the likeliest token.")
    ] = None
    top_p: Annotated[
        float | None,
        Field(ge=0, le=1, description="Only the likeliest tokens are drawn from, which together have this probability."),
    ] = None
    top_k: Annotated[
        int | None, Field(ge=-1, lt=INT64, description="Only so many of the likeliest tokens are drawn from; 0 or −1: all.")
    ] = None
    n: Annotated[int | None, Field(ge=1, le=128, description="Number of independent samples.")] = None
    best_of: Annotated[
        int | None, Field(ge=0, le=20, description="How many the provider generates to give back the best; 0: not set.")
    ] = None
    seed: Annotated[
        int | None, Field(ge=-INT64, lt=INT64, description="The same seed gives the same answer, where the provider can.")
    ] = None
    stop: Annotated[
        Annotated[tuple[str, ...], _up_to_stops(MAX_STOPS)] | None,
        Field(description="Sequences to stop before; none of them is in the answer. `[]`: none."),
    ] = None
    presence_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Above 0: tokens that occurred already become less likely.")
    ] = None
    frequency_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Above 0: tokens become less likely the more often they occurred.")
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(ge=-2, le=2, description="Above 1: what occurred already becomes less likely; 1 is neutral, 0 is not set."),
    ] = None
    logit_bias: Annotated[Biases | None, Field(description="Token id → what is added to its logit.")] = None
    logprobs: Annotated[
        int | None, Field(ge=0, le=20, description="How many alternatives to report beside each token; 0: the token alone.")
    ] = None
    echo: Annotated[bool | None, Field(description="The prompt stands before the answer.")] = None
    suffix: Annotated[str | None, Field(description="Text that comes after the answer.")] = None
    user: Annotated[str | None, Field(max_length=256, description="Your own user, passed on to the provider.")] = None

    @property
    def generated_answers(self) -> int:
        """Answers that one call makes, and that are paid for; with `best_of` it returns fewer."""
        return max(self.n or 1, self.best_of or 1)

    def as_dict(self) -> JsonObject:
        """Return the parameters that the caller set, by name."""
        values = _READ_ALL(self)
        if values == _NONE_SET:  # half of all requests, once for each of their models
            return {}
        return {name: value for name, value in zip(SAMPLING_NAMES, values, strict=True) if value is not None}


class SamplingOptions(TypedDict, total=False):
    """The parameters of `Sampling` as keyword arguments, for editors and type checkers."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    n: int | None
    best_of: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: int | None
    echo: bool | None
    suffix: str | None
    user: str | None


SAMPLING_NAMES = tuple(item.name for item in fields(Sampling))
_READ_ALL = attrgetter(*SAMPLING_NAMES)
_NONE_SET = (None,) * len(SAMPLING_NAMES)
_ANNOTATIONS: Mapping[str, Any] = get_type_hints(Sampling, include_extras=True)
_TYPES = {name: get_args(annotation)[0] for name, annotation in _ANNOTATIONS.items()}
_FIELDS: Mapping[str, FieldInfo] = {name: annotation.__metadata__[-1] for name, annotation in _ANNOTATIONS.items()}
DESCRIPTIONS: Mapping[str, str] = {name: field.description or "" for name, field in _FIELDS.items()}
# A seed is no amount: the nearest allowed seed would give another answer.
MEASURED = tuple(name for name in SAMPLING_NAMES if name != "seed" and get_args(_TYPES[name])[0] in (int, float))
"""Parameters that are amounts, which may be clamped to a host's range."""


def is_whole(name: str) -> bool:
    """Return whether a parameter is a whole number."""
    return get_args(_TYPES[name])[0] is int


def range_of(name: str) -> Range:
    """Return the lowest and the highest value that a parameter may have."""
    # `lt`, the bound of 64-bit numbers, is omitted: such a bound helps no reader.
    ends = {side: getattr(end, side) for end in _FIELDS[name].metadata for side in ("ge", "le") if hasattr(end, side)}
    return ends.get("ge"), ends.get("le")


def annotate(field_name: str, name: str, limits: Range | None = None) -> Any:
    """Return the annotation of a field for the parameter `name`, with the limits of its contract: of `stop`, their number."""
    description = DESCRIPTIONS[name] if field_name == name else f"Another name of `{name}`."
    if name == "stop" and limits is not None and limits[1] is not None:
        stops = Annotated[tuple[str, ...], _up_to_stops(int(limits[1]))]
        annotation: Any = Annotated[stops | None, Field(description=description)]
    elif limits is None:
        annotation = Annotated[_ANNOTATIONS[name], Field(description=description)]
    else:
        annotation = Annotated[_TYPES[name], Field(description=description, ge=limits[0], le=limits[1])]
    return annotation if field_name == name else Annotated[annotation, _agree_with(name)]


def _agree_with(name: str) -> AfterValidator:
    def check(value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get(name) not in (None, value):
            raise ValueError(f"is another name of `{name}`: give one of them, or both alike")
        return value

    return AfterValidator(check)


class AdjustmentJson(TypedDict):
    asked: Annotated[object, Doc("The value in the request.")]
    sent: Annotated[object, Doc("The value sent to the provider.")]


def render_adjustments(adjusted: Mapping[str, tuple[object, object]]) -> dict[str, AdjustmentJson]:
    """Return adjustments by parameter."""
    # Tested first, because this runs for every answer and most have no adjustments.
    return {name: {"asked": requested, "sent": sent} for name, (requested, sent) in adjusted.items()} if adjusted else {}
