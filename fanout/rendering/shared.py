"""Parts that several answers show: sums of tokens, cost and time, and pages of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from typing_extensions import Doc, TypedDict

from fanout.core.usage import total_tokens


class TokenCountsJson(TypedDict):
    prompt_tokens: Annotated[int | None, Doc("Tokens of the prompt, cached ones included.")]
    completion_tokens: Annotated[int | None, Doc("Tokens of the answer, those of its reasoning included.")]
    total_tokens: Annotated[int | None, Doc("Both together; null if either is unknown.")]
    cached_tokens: Annotated[int | None, Doc("Tokens of the prompt that were read from the provider's cache.")]


class CostTotalsJson(TypedDict):
    cost_usd: Annotated[float | None, Doc("US dollars; null: no price or no usage is known.")]
    cost_unknown: Annotated[int, Doc("Answers with no known price, which are missing from the cost.")]


class TotalTimingJson(TypedDict):
    total_ms: Annotated[int, Doc("From the request's arrival to this answer.")]
    overhead_ms: Annotated[int, Doc("Time beyond the slowest call's: what Fanout itself took.")]


class TokenSums(Protocol):
    """Sums over calls, or the tokens of one."""

    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...


def render_token_counts(sums: TokenSums) -> TokenCountsJson:
    """Return tokens of prompts and answers, and both together."""
    return {
        "prompt_tokens": sums.input_tokens,
        "completion_tokens": sums.output_tokens,
        "total_tokens": total_tokens(sums.input_tokens, sums.output_tokens),
        "cached_tokens": sums.cached_tokens,
    }


class PageEndsJson(TypedDict):
    first_id: Annotated[str | None, Doc("Id of the first item of this page.")]
    last_id: Annotated[str | None, Doc("Id of the last item of this page. Give it as `after` for the next page.")]
    has_more: Annotated[bool, Doc("There are more pages.")]


class PageJson(PageEndsJson):
    object: Literal["list"]


def render_page_ends(ids: Sequence[str], *, has_more: bool) -> PageEndsJson:
    """Return the ids of a page's first and last items, and whether more pages follow."""
    # Null on an empty page, which has no item that a client could pass on as `after`.
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None, "has_more": has_more}
