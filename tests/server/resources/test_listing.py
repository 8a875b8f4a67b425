"""Pages of lists: written beside the event loop."""

from __future__ import annotations

import json
import threading

from fanout.server.resources.listing import page_response, write_list


async def test_a_page_is_rendered_and_written_in_a_thread() -> None:
    response = await page_response(
        ["a", "b"], lambda id_: {"id": id_, "by": threading.current_thread().name}, "ab", has_more=True
    )
    assert isinstance(response.body, bytearray)
    page = json.loads(response.body)
    assert [(item["id"], item["by"].partition("_")[0]) for item in page.pop("data")] == [("a", "answers"), ("b", "answers")]
    assert page == {"object": "list", "first_id": "a", "last_id": "b", "has_more": True}


def test_a_list_holds_items_of_any_length_between_its_other_fields() -> None:
    long = 'ü"\n' * 100_000
    written = write_list([{"text": long}, b'{"a":1}', []], {"text": long}, {"last": long}, field="choices")
    assert json.loads(written) == {"text": long, "choices": [{"text": long}, {"a": 1}, []], "last": long}
    assert write_list([], {"object": "list"}) == b'{"object":"list","data":[]}'
