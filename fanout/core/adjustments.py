"""Parameters that were sent with another value than requested, as answers and results write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from typing_extensions import Doc, TypedDict


class AdjustmentJson(TypedDict):
    asked: Annotated[object, Doc("The value in the request.")]
    sent: Annotated[object, Doc("The value sent to the provider.")]


def render_adjustments(adjusted: Mapping[str, tuple[object, object]]) -> dict[str, AdjustmentJson]:
    """Return adjustments by parameter."""
    return {name: {"asked": requested, "sent": sent} for name, (requested, sent) in adjusted.items()}
