"""Names of fields that were misspelt."""

from __future__ import annotations

import pytest

from fanout.core.suggestions import find_misspelt
from fanout.jobs.row_fields import MISSPELLABLE


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("promt", "prompt"),
        ("Prompt", "prompt"),
        ("prompts", "prompt"),
        ("tempreature", "temperature"),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("topk", "top_k"),
        ("message", "messages"),
        ("customid", "custom_id"),
        ("reference_", "reference"),
        ("frequencyPenality", "frequency_penalty"),
    ],
)
def test_a_misspelt_field_name_is_recognized(name: str, known: str) -> None:
    assert find_misspelt(name, MISSPELLABLE) == known
