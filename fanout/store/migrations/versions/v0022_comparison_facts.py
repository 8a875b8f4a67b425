"""Comparisons in pages may be kept as facts, which no earlier version reads. The tables stay as they are."""

from __future__ import annotations

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Change nothing: an earlier version finds a newer store, and refuses it."""
