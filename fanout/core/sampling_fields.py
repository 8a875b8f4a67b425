"""Bodies that take sampling parameters, made of the one declaration in `core.sampling`.

A body names the parameters it takes in its class line, and the ranges where its contract is narrower or wider. The fields come
with their types, ranges and descriptions; none is declared again:

    class TextSampling(OpenAiSampling, takes=("best_of", "echo", "logprobs", "suffix"), ranges={"logprobs": (0, 5)}):
        ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError

from fanout.core.errors import Fault
from fanout.core.faults import to_faults
from fanout.core.json_text import JsonObject
from fanout.core.long_lists import MAX_FIELDS, BoundedObject
from fanout.core.sampling import SAMPLING_NAMES, Range, annotate
from fanout.core.suggestions import did_you_mean


class SamplingFields(BoundedObject):
    """A body with some of the sampling parameters, which it names in its class line.

    Class arguments:
        takes: the names of its fields, in their order, before those that the class declares itself.
        spellings: fields that bear another name than the parameter they stand for.
        ranges: ranges of this contract, where they are not those of `Sampling`; of `stop`, the number of sequences.
    """

    spellings: ClassVar[Mapping[str, str]] = {}
    parameters: ClassVar[frozenset[str]] = frozenset()
    """The fields that are sampling parameters, by all their spellings."""

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
        # Pydantic collects annotations and defaults from the class after this hook. Taken fields come first, so that
        # validators of the class's own fields find them in `info.data`.
        taken = {name: annotate(name, cls.spellings.get(name, name), ranges.get(name)) for name in (*takes, *ranges)}
        cls.__annotations__ = {**taken, **cls.__annotations__}
        for name in taken.keys() - cls.__dict__.keys():
            setattr(cls, name, None)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Note which fields are parameters, once pydantic has collected them."""
        cls.parameters = frozenset(cls.model_fields.keys() & {*SAMPLING_NAMES, *cls.spellings})

    def to_parameters(self) -> JsonObject:
        """Return the parameters that were written, as `Sampling` holds them; one that was written as `null` is `None`."""
        # A body that allows further fields also reports those as set, though they are no parameters.
        written = self.model_fields_set & self.parameters
        given: JsonObject = {name: getattr(self, name) for name in written if name not in self.spellings}
        # Only null parameters are replaced: validation has refused two spellings with different values.
        for spelling, name in self.spellings.items():
            if spelling in written and given.get(name) is None:
                given[name] = getattr(self, spelling)
        # An empty list means the same as an absent one, but only the absent one is left out of upstream requests.
        if given.get("stop") is not None:
            given["stop"] = tuple(given["stop"]) or None
        return given


class AllSampling(SamplingFields, takes=SAMPLING_NAMES):
    """All sampling parameters, in the widest ranges."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def validate_sampling(given: Mapping[str, object], place: str, faults: list[Fault], *, strict: bool = False) -> JsonObject:
    """Return sampling parameters as `Sampling` holds them; none where one is wrong: `faults` takes why, at `place`."""
    if len(given) > MAX_FIELDS:
        faults.append(Fault(place.rstrip("."), f"{len(given)} parameters are not allowed: at most {MAX_FIELDS}"))
        return {}
    for name in given:
        if name not in SAMPLING_NAMES:
            hint = did_you_mean(name, SAMPLING_NAMES) or f"; known: {', '.join(SAMPLING_NAMES)}"
            faults.append(Fault(f"{place}{name}", f"unknown parameter `{name}`{hint}", "unknown_parameter"))
    known = {name: value for name, value in given.items() if name in SAMPLING_NAMES}
    try:
        return AllSampling.model_validate(known, strict=strict).to_parameters()
    except ValidationError as error:
        faults += [Fault(f"{place}{fault.path}", fault.message, fault.kind) for fault in to_faults(error)]
        return {}
