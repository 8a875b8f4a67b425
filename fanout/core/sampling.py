"""Sampling parameters: the one declaration of their names, types, ranges and descriptions.

`Sampling` declares them. Everything else is derived from it:

- A body that takes some of them is a `SamplingFields` that names them in its class line, and the ranges where its contract
  is narrower or wider. The fields come with their types, ranges and descriptions; none is declared again:

      class TextSampling(OpenAiSampling, takes=("best_of", "echo", "logprobs", "suffix"), ranges={"logprobs": (0, 5)}):
          ...

- `AllSampling` takes all of them, for programs and a job's rows (`validate_sampling`).
- The command line's options and the documents take `range_of` and `DESCRIPTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationError,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from fanout.core.faults import Fault, to_faults
from fanout.core.suggestions import did_you_mean

INT64 = 2**63
MAX_STOPS = 4
Range = tuple[float | None, float | None]
"""Lowest and highest value; `None`: no end."""


def at_most(most: int, what: str) -> BeforeValidator:
    """Return a validator that counts first: a million items are not validated one by one only to be refused for being many."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"{len(value)} {what} are not allowed: at most {most}")
        return value

    return BeforeValidator(check)


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


_StopList = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_STOPS),
    at_most(MAX_STOPS, "sequences"),
    BeforeValidator(_to_list),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_STOPS}]}
    ),
]
Bias = Annotated[float, Field(ge=-100, le=100), AfterValidator(lambda bias: int(bias) if bias.is_integer() else bias)]
"""A whole one stays whole on its way: some servers refuse `50.0` for an integer."""
_BiasDict = Annotated[dict[str, Bias], at_most(2048, "tokens")]
Stop = Annotated[tuple[str, ...], GetPydanticSchema(lambda _, handler: handler(_StopList))]
Biases = Annotated[Mapping[str, float], GetPydanticSchema(lambda _, handler: handler(_BiasDict))]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Every sampling parameter of the contracts, in the widest range of any; `None`: the caller did not set it."""

    max_tokens: Annotated[int | None, Field(ge=0, description="Most tokens to generate.")] = None
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="Higher is more varied; 0 always takes the likeliest token.")
    ] = None
    top_p: Annotated[
        float | None,
        Field(ge=0, le=1, description="Only the likeliest tokens are drawn from, which together have this probability."),
    ] = None
    top_k: Annotated[
        int | None, Field(ge=-1, description="Only so many of the likeliest tokens are drawn from; 0 or −1: all.")
    ] = None
    n: Annotated[int | None, Field(ge=1, le=128, description="Number of independent samples.")] = None
    best_of: Annotated[
        int | None, Field(ge=0, le=20, description="How many the provider generates to give back the best; 0: not set.")
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=-INT64, lt=INT64, description="The same seed gives the same answer, where the provider can."),
    ] = None
    stop: Annotated[Stop | None, Field(description="Up to four sequences to stop before; none of them is in the answer.")] = (
        None
    )
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

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters that the caller set, by name."""
        return {name: value for name in SAMPLING_NAMES if (value := getattr(self, name)) is not None}


SAMPLING_NAMES = tuple(item.name for item in fields(Sampling))
_ANNOTATIONS: Mapping[str, Any] = get_type_hints(Sampling, include_extras=True)
_TYPES = {name: get_args(annotation)[0] for name, annotation in _ANNOTATIONS.items()}
_FIELDS: Mapping[str, FieldInfo] = {name: annotation.__metadata__[-1] for name, annotation in _ANNOTATIONS.items()}
DESCRIPTIONS: Mapping[str, str] = {name: field.description or "" for name, field in _FIELDS.items()}
MEASURED = tuple(name for name in SAMPLING_NAMES if name != "seed" and get_args(_TYPES[name])[0] in (int, float))
"""Parameters that are more or less of something, which a host may clamp."""


def range_of(name: str) -> Range:
    """Return the lowest and the highest value that a parameter may have."""
    ends = {side: getattr(end, side) for end in _FIELDS[name].metadata for side in ("ge", "le") if hasattr(end, side)}
    return ends.get("ge"), ends.get("le")


class SamplingFields(BaseModel):
    """A body with some of the sampling parameters, which it names in its class line.

    Class arguments:
        takes: the names of its fields, in their order, before those that the class declares itself.
        spellings: fields that bear another name than the parameter they stand for.
        ranges: ranges of this contract, where they are not those of `Sampling`.
    """

    spellings: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(
        cls,
        takes: Iterable[str] = (),
        spellings: Mapping[str, str] | None = None,
        ranges: Mapping[str, Range] | None = None,
        **config: Any,
    ) -> None:
        """Declare the fields before pydantic collects them."""
        super().__init_subclass__(**config)
        if spellings:
            cls.spellings = {**cls.spellings, **spellings}
        ranges = ranges or {}
        taken = {name: _annotate(name, cls.spellings.get(name, name), ranges.get(name)) for name in (*takes, *ranges)}
        cls.__annotations__ = {**taken, **cls.__annotations__}
        for name in taken.keys() - cls.__dict__.keys():
            setattr(cls, name, None)

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters that were written, as `Sampling` holds them; one that was written as `null` is `None`."""
        written = self.model_fields_set & type(self).model_fields.keys()
        given: dict[str, Any] = {name: getattr(self, name) for name in written if name in _FIELDS}
        for spelling, name in self.spellings.items():
            if spelling in written and given.get(name) is None:
                given[name] = getattr(self, spelling)
        if given.get("stop") is not None:
            given["stop"] = tuple(given["stop"])
        return given


def _annotate(field_name: str, name: str, limits: Range | None) -> Any:
    description = DESCRIPTIONS[name] if field_name == name else f"Another name of `{name}`."
    if limits is None:
        return Annotated[_ANNOTATIONS[name], Field(description=description)]
    return Annotated[_TYPES[name], Field(description=description, ge=limits[0], le=limits[1])]


class AllSampling(SamplingFields, takes=SAMPLING_NAMES):
    """All sampling parameters, in the widest ranges."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def validate_sampling(given: Mapping[str, Any], place: str, faults: list[Fault], *, strict: bool = False) -> dict[str, Any]:
    """Return sampling parameters as `Sampling` holds them; none where one of them is wrong.

    Args:
        given: the parameters as the caller wrote them.
        place: the beginning of their paths in faults.
        faults: takes what is wrong.
        strict: whether `"5"` is refused as a number.
    """
    for name in given:
        if name not in _FIELDS:
            hint = did_you_mean(name, SAMPLING_NAMES) or f"; known: {', '.join(SAMPLING_NAMES)}"
            faults.append(Fault(f"{place}{name}", f"unknown parameter `{name}`{hint}", "unknown_parameter"))
    known = {name: value for name, value in given.items() if name in _FIELDS}
    try:
        return AllSampling.model_validate(known, strict=strict).to_parameters()
    except ValidationError as error:
        faults += [Fault(f"{place}{fault.path}", fault.message, fault.kind) for fault in to_faults(error)]
        return {}
