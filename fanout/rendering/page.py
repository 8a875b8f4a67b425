"""Pages of lists, as OpenAI's clients turn them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict


class PageEndsJson(TypedDict):
    first_id: Annotated[str | None, Doc("Id of the first item of this page.")]
    last_id: Annotated[str | None, Doc("Id of the last item of this page. Give it as `after` for the next page.")]
    has_more: Annotated[bool, Doc("There are more pages.")]


class PageJson(PageEndsJson):
    object: Literal["list"]


def render_page_ends(ids: Sequence[str], *, has_more: bool) -> PageEndsJson:
    """Return the fields by which a page says where it stands in its list."""
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": has_more}
