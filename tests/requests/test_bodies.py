"""Entries of `model` that are a name alone are validated once, and are the same as if they were written out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fanout.core.errors import RequestError
from fanout.requests.bodies import MAX_ENTRIES, validate_body
from fanout.requests.fusions import MAX_NAME_CHARS
from fanout.requests.openai.chat import ChatBody
from fanout.requests.openai.embeddings import EmbeddingsBody
from fanout.requests.openai.responses import ResponsesBody
from fanout.requests.openai.text import CompletionsBody
from fanout.requests.thiggle import CompletionBody
from fanout.server.resources.job_bodies import JobBody

BODIES: dict[type[BaseModel], tuple[str, dict[str, Any]]] = {
    CompletionBody: ("model", {"prompt": "hi"}),
    CompletionsBody: ("model", {"prompt": "hi"}),
    ChatBody: ("model", {"messages": [{"role": "user", "content": "hi"}]}),
    ResponsesBody: ("model", {"input": "hi"}),
    EmbeddingsBody: ("model", {"input": "hi"}),
    JobBody: ("models", {"items": [{"prompt": "hi"}]}),
}
"""Bodies of every contract, with the field of their entries."""
NAMES = st.one_of(
    st.text(max_size=3), st.sampled_from(["gpt-6-sol", "up/ok", "x" * MAX_NAME_CHARS, "x" * (MAX_NAME_CHARS + 1)]), st.none()
)
ENTRIES = st.one_of(NAMES, st.fixed_dictionaries({"model": NAMES}, optional={"temperature": st.floats(0, 3)}))


def read(model: type[BaseModel], entries: object) -> object:
    """Return the entries of a body, with the fields that were set; if it is refused, where, for which wrong values."""
    field, rest = BODIES[model]
    try:
        body = validate_body(json.dumps({**rest, field: entries}).encode(), model)
    except RequestError as error:
        return sorted((fault.path.removesuffix(".model"), fault.message) for fault in error.faults)
    return [(entry, entry.model_fields_set) for entry in getattr(body, field)]


@pytest.mark.parametrize("model", BODIES, ids=lambda model: model.__name__)
@given(entries=st.lists(ENTRIES, max_size=4))
def test_a_name_is_the_same_entry_as_an_object_with_that_model(model: type[BaseModel], entries: list[object]) -> None:
    written_out = [{"model": entry} if isinstance(entry, str) else entry for entry in entries]

    assert read(model, entries) == read(model, written_out)
    assert read(model, entries) == read(model, entries), "the second time it is known"


@given(names=st.lists(st.text(min_size=1, max_size=MAX_NAME_CHARS), min_size=1, max_size=4))
def test_a_name_makes_the_same_plan_as_an_object_with_that_model(names: list[str]) -> None:
    plain, written_out = (
        CompletionBody.model_validate({"prompt": "hi", "model": entries}) for entries in (names, [{"model": n} for n in names])
    )

    assert plain.to_request("hi", {}, None) == written_out.to_request("hi", {}, None)


@pytest.mark.parametrize("model", BODIES, ids=lambda model: model.__name__)
def test_the_number_of_entries_has_a_bound(model: type[BaseModel]) -> None:
    allowed, refused = read(model, ["m"] * MAX_ENTRIES), read(model, ["m"] * (MAX_ENTRIES + 1))

    assert isinstance(allowed, list)
    assert isinstance(refused, list)
    assert len(allowed) == MAX_ENTRIES
    assert [f"{MAX_ENTRIES + 1} entries are not allowed: 1 to {MAX_ENTRIES}" in message for _, message in refused] == [True]
