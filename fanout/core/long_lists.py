"""Bounds on the work of a validation: objects of few fields, and long lists in steps that end after enough faults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import InitErrorDetails

MAX_FAULTS = 100
"""Limit of faults in one answer."""
STEP_ITEMS = 20
MAX_FIELDS = 64
"""Limit of fields in one object. Each unknown one is compared with all that are known."""


class BoundedObject(BaseModel):
    """Base of the bodies that must be a JSON object, and of their parts."""

    form: ClassVar = "a JSON object"

    @model_validator(mode="before")
    @classmethod
    def _check_object(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"must be {cls.form}")  # noqa: TRY004 - only this one is a wrong field to pydantic
        if len(value) > MAX_FIELDS:
            known = f"; known: {', '.join(cls.model_fields)}" if cls.model_config.get("extra") == "forbid" else ""
            raise ValueError(f"{len(value)} fields are not allowed: at most {MAX_FIELDS}{known}")
        # JSON has one kind of numbers, and JSON Schema calls 5.0 an integer. Fields that are passed on stay as they came.
        whole = {name: int(item) for name, item in value.items() if type(item) is float and item.is_integer()}
        return {**value, **{name: item for name, item in whole.items() if name in cls.model_fields}} if whole else value


def _validate_in_steps(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, list | dict) or len(value) <= STEP_ITEMS:
        return validate(value)
    made: Any = type(value)()
    wrong: list[InitErrorDetails] = []
    title = "items"
    for start, part in _split(value):
        try:
            found = validate(part)
        except ValidationError as error:
            title = error.title
            wrong += (_move(fault, start if isinstance(value, list) else 0) for fault in list_faults(error))
            if len(wrong) > MAX_FAULTS:
                break
        else:
            made.update(found) if isinstance(made, dict) else made.extend(found)
    if wrong:
        raise ValidationError.from_exception_data(title, wrong[: MAX_FAULTS + 1], "json")
    return made


def _split(value: list[Any] | dict[str, Any]) -> Iterator[tuple[int, Any]]:
    if isinstance(value, list):
        for start in range(0, len(value), STEP_ITEMS):
            yield start, value[start : start + STEP_ITEMS]
        return
    items = iter(value.items())
    while part := dict(islice(items, STEP_ITEMS)):
        yield 0, part


def list_faults(error: ValidationError) -> Iterator[InitErrorDetails]:
    """Yield the faults of a validation, as those of another one can be made of."""
    for detail in error.errors(include_url=False):
        yield InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))


def _move(fault: InitErrorDetails, start: int) -> InitErrorDetails:
    first, *rest = fault.get("loc") or (0,)
    return {**fault, "loc": (first + start if isinstance(first, int) else first, *rest)}


IN_STEPS = WrapValidator(_validate_in_steps)
"""Annotation of a list or an object that may be long; an upper bound of its length stands outside, for each step is a list."""
