"""Fused answers: one answer that a model makes of the answers of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from typing_extensions import Doc, TypedDict

from fanout.core.usage import sum_known
from fanout.core.value_type import value_type

MIN_MEMBERS, MAX_MEMBERS = 2, 16
"""Bounds on the members of a fusion, sets written out."""


@value_type(frozen=True, slots=True)
class FusionMember:
    """A member of a fused answer, once it has ended."""

    entry: int
    index: int | None
    """Place of its answer among all answers; `None` in jobs, whose answers have places of their own."""
    label: str
    left_out: str | None = None
    """Reason why its answer could not be used; `None`: it was used."""


@value_type(frozen=True, slots=True)
class FusedMembers:
    """Members of a call that makes one answer of theirs."""

    of: tuple[int, ...]
    """Entries of the members, in the order in which their answers are shown."""
    template: str | None = None
    """The caller's own words for the task; `None`: `dispatch.fusing.TEMPLATE`."""
    prompt_version: str = ""
    context_tokens: int | None = None
    """Length of the model's context, where it is known."""
    members: tuple[FusionMember, ...] = ()
    """Empty until all of them have ended."""
    members_cost_usd: float | None = None
    """Sum of their known costs; `None`: none is known."""
    members_cost_unknown: int = 0
    """Answers of members whose cost is not known."""


class FusionMemberJson(TypedDict):
    """A member of a fused answer. Its own answer stands beside it, at `index`."""

    entry: Annotated[int, Doc("Entry of the member.")]
    index: Annotated[int | None, Doc("Its answer's place among all; null in jobs, where `entry` tells its results.")]
    label: Annotated[str, Doc("Its label.")]
    left_out: Annotated[str | None, Doc("Why its answer was not used; null: it was.")]


class FusionJson(TypedDict):
    """Members of a fused answer, and the cost of all: `cost_usd` beside it is that of the fusing call alone."""

    of: Annotated[Sequence[int], Doc("Entries of the members, in the order in which their answers were shown.")]
    members: Annotated[Sequence[FusionMemberJson], Doc("The members; none if the fusion ended before they did.")]
    prompt: Annotated[str, Doc("Version of the prompt that shows the answers; of a template of yours, its digest.")]
    cost_usd: Annotated[float | None, Doc("US dollars for the members and for the fusing call; null: no price is known.")]
    cost_unknown: Annotated[int, Doc("Answers among them with no known price, which are missing from the cost.")]


def render_fusion(fusion: FusedMembers, cost_usd: float | None, *, is_answered: bool) -> FusionJson:
    """Return the members of a fused answer; `cost_usd` is the price of the fusing call, `None` if it is not known."""
    return {
        "of": list(fusion.of),
        "members": [
            {"entry": member.entry, "index": member.index, "label": member.label, "left_out": member.left_out}
            for member in fusion.members
        ],
        "prompt": fusion.prompt_version,
        "cost_usd": sum_known((fusion.members_cost_usd, cost_usd)),
        "cost_unknown": fusion.members_cost_unknown + (is_answered and cost_usd is None),
    }
