"""Copies among a job's entries: further calls of a model, for a fusion of it with itself. They are no contestants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.jobs.job import Fingerprint, parse_entry_number

SEEDS = ("seed", "random_seed")


def describe_member(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the properties that equal members of a fusion share, from an entry's row of the fingerprint."""
    # Copies of a member differ by their seeds alone.
    sent = {name: value for name, value in row.get("sent", {}).items() if name not in SEEDS}
    return row["provider"], row["upstream_model"], sent


def list_copies(fingerprint: Fingerprint) -> frozenset[int]:
    """Return the entries that are further calls of another one: a second draw of a model is no other model."""
    if not any(row.get("fusion") for row in fingerprint.values()):
        return frozenset()  # nor have requests, which name models of their own, any entries
    rows = {parse_entry_number(name): row for name, row in fingerprint.items()}
    copies, seen = set(), list[tuple[object, ...]]()
    for entry, row in sorted(rows.items()):
        member = describe_member(row)
        if row.get("is_member") and member in seen:
            copies.add(entry)
        elif not row.get("fusion"):
            seen.append(member)
    return frozenset(copies)
