"""Queries and pages of the endpoints that list things."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from fanout.core.errors import Fault, RequestError
from fanout.core.faults import to_faults
from fanout.core.json_text import dump_in_steps, encode_json
from fanout.core.long_json import join_in_steps
from fanout.core.threads import run_in_thread
from fanout.rendering.shared import render_page_ends

DAY_S = 86_400


def parse_whole_number(text: object) -> object:
    """Turn digits into a number; leave everything else to be refused."""
    # Nine digits exceed every limit; of thousands int() would raise an error of its own.
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else text


class ListQuery(BaseModel):
    """The part of a list to show."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(20, ge=1, le=100)
    """Most items of a page."""
    after: str | None = Field(None, max_length=256)
    """The `last_id` of the page before."""
    account_id: str | None = Field(None, max_length=256)
    """Only this account's; empty: only those without an account; absent: the key's own; without keys
    by the header `x-selected-account-id`, else all."""


Query = TypeVar("Query", bound=BaseModel)
Item = TypeVar("Item")


def read_query(request: web.Request, model: type[Query], *, joined: Collection[str] = ()) -> Query:
    """Validate the query of a request, whole. A parameter of `joined` may be given several times: as if with commas between.

    Raises:
        RequestError: with every wrong parameter.
    """
    given = {name: request.query.getall(name) for name in request.query}
    repeated = [name for name, values in given.items() if len(values) > 1 and name not in joined]
    faults = [Fault(name, f"is given {len(given[name])} times: once is allowed") for name in repeated]
    return validate_query(
        {name: ",".join(values) if name in joined else values[0] for name, values in given.items()}, model, faults
    )


def validate_query(given: Mapping[str, object], model: type[Query], faults: Sequence[Fault]) -> Query:
    """Validate parameters; raise `RequestError` with every wrong one, and with the `faults` that are known already."""
    try:
        query = model.model_validate(given)
    except ValidationError as error:
        faults = [*faults, *to_faults(error, model)]
    if faults:
        raise RequestError(list(dict.fromkeys(faults)))
    return query


def time_schema(example: str) -> WithJsonSchema:
    """Return the JSON schema of a date or time."""
    return WithJsonSchema({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}], "examples": [example]})


async def page_response(
    items: Sequence[Item], render: Callable[[Item], Mapping[str, object]], ids: Sequence[str], *, has_more: bool
) -> web.Response:
    """Return a page of items with these ids."""
    return await list_response(items, render, {"object": "list"}, render_page_ends(ids, has_more=has_more))


async def list_response(
    items: Sequence[Item],
    render: Callable[[Item], object],
    head: Mapping[str, object],
    tail: Mapping[str, object] | None = None,
) -> web.Response:
    """Return an answer with a list: `head`, the list as `data`, `tail`."""
    # In a thread: a page may have ten thousand items, or texts of many megabytes.
    body = await run_in_thread("answers", write_list, map(render, items), head, tail)
    return web.Response(body=body, content_type="application/json")


def write_list(
    items: Iterable[object], head: Mapping[str, object], tail: Mapping[str, object] | None = None, *, field: str = "data"
) -> bytearray:
    """Return the JSON of `head`, of the items as `field`, and of `tail`. An item that is bytes is JSON already."""
    pieces = dump_in_steps(head)
    pieces[-1] = pieces[-1][:-1] + f',"{field}":['.encode()
    for number, item in enumerate(items):
        pieces += [b"," if number else b""]
        pieces += [item] if isinstance(item, bytes) else dump_in_steps(item)
    pieces += [b"]}"] if tail is None else [b"],", encode_json(tail)[1:]]
    return join_in_steps(pieces)
