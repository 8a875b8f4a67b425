"""What the endpoints of files, batches and jobs have in common: the store they need, their pages, their statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fanout.core.errors import RequestError, StoreError
from fanout.core.faults import Fault, to_faults
from fanout.observability.logs import log
from fanout.rendering.errors import error_reply, faults_reply
from fanout.server.lifecycle import DISPATCHER, JOB_MANAGER, STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import Handler
from fanout.server.responses import error_response, json_response

STATUS: Mapping[str, int] = {
    "file_not_found": 404,
    "batch_not_found": 404,
    "job_not_found": 404,
    "wrong_state": 409,
    "changed": 409,
}
"""Of requests that are refused for such a reason; all others are 400."""


def parse_whole_number(text: Any) -> Any:
    """Digits alone are a number."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else text


class ListQuery(BaseModel):
    """Which part of a list is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(20, ge=1, le=100)
    """How many at most."""
    after: str | None = Field(None, max_length=256)
    """The id of the last one of the page before."""
    account_id: str | None = Field(None, max_length=256)
    """One account's; empty: nobody's; absent: as the header `x-selected-account-id` has it, else all."""


Query = TypeVar("Query", bound=BaseModel)


def needs_store(handler: Handler) -> Handler:
    """A handler that needs the store: without one, and where it fails, the answer says so."""

    @wraps(handler)
    async def answered(request: web.Request) -> web.StreamResponse:
        if JOB_MANAGER not in request.app:
            headers = {"x-should-retry": "false"}
            sentence = "nothing is kept here, so no files and jobs: FANOUT_STORE is `off`"
            reply = error_reply(503, sentence, type_="configuration_error", code="store_off", headers=headers)
            return error_response(request, reply)
        try:
            return await handler(request)
        except RequestError as error:
            return error_response(request, faults_reply(error.faults, STATUS.get(error.faults[0].kind, 400)))
        except StoreError as error:
            log.error("the store failed", database=request.app[STORE].name, reason=str(error))
            sentence = "the database cannot be read or written now; the log has the details"
            return error_response(request, error_reply(503, sentence, type_="server_error", code="store_unavailable"))

    return answered


def read_query(request: web.Request, model: type[Query]) -> Query:
    """The query, validated whole.

    Raises:
        RequestError: with every wrong parameter.
    """
    given = {name: request.query.getall(name) for name in request.query}
    faults = [
        Fault(name, f"is given {len(values)} times: once is allowed") for name, values in given.items() if len(values) > 1
    ]
    try:
        asked = model.model_validate({name: values[0] for name, values in given.items()})
    except ValidationError as error:
        raise RequestError([*faults, *to_faults(error, model)]) from None
    if faults:
        raise RequestError(faults)
    return asked


def requested_account(request: web.Request, asked: ListQuery) -> str | None:
    """Whose are listed; `None`: everybody's."""
    return auth.account_id(request) if asked.account_id is None else asked.account_id


def respond_page(found: Sequence[Mapping[str, Any]], *, more: bool) -> web.Response:
    """A page of a list, as OpenAI's clients turn them."""
    ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {"first_id": None, "last_id": None}
    return json_response({"object": "list", "data": found, **ends, "has_more": more})


def refuse_caller_keys(request: web.Request) -> None:
    """A caller's own keys are for one request alone: they are kept nowhere, so that no job can use them later.

    Raises:
        RequestError: the request brings one.
    """
    brought = auth.caller_credentials(request)
    providers = request.app[DISPATCHER].settings.providers
    faults = [
        Fault(str(providers[name].row.key_header), "is not taken here: a key of your own serves one request, a job outlives it")
        for name in brought
    ]
    if faults:
        raise RequestError(faults)


def to_unix_seconds(moment: float | None) -> int | None:
    """Unix seconds, as OpenAI writes times."""
    return None if moment is None else int(moment)
