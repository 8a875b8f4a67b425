"""Scale's answers.

Source: the response types of scale-gp 0.1.0a62 and scale-egp 1.1.15.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from fanout.rendering.errors import ErrorJson


class ScaleErrorJson(TypedDict):
    """Scale's error, with OpenAI's envelope beside it."""

    detail: str
    """What is wrong, for people."""
    error: ErrorJson
    """The same as OpenAI writes it."""


def render_scale_error(error: ErrorJson) -> ScaleErrorJson:
    """Return an error as Scale's clients read it."""
    return {"detail": error["message"], "error": error}
