"""All tables of the store, the same on SQLite and PostgreSQL.

`migrations/` creates them; a test compares what it creates with what is declared.
"""

from __future__ import annotations

from fanout.store.batches import batches
from fanout.store.engine.metadata import metadata
from fanout.store.files import file_parts, files
from fanout.store.history.tables import answers, comparison_metadata, comparisons, history_texts
from fanout.store.idempotency import idempotent_answers
from fanout.store.jobs.tables import attempts, failures, items, job_counts, jobs, texts, units
from fanout.store.usage.tables import usage

__all__ = [
    "answers",
    "attempts",
    "batches",
    "comparison_metadata",
    "comparisons",
    "failures",
    "file_parts",
    "files",
    "history_texts",
    "idempotent_answers",
    "items",
    "job_counts",
    "jobs",
    "metadata",
    "texts",
    "units",
    "usage",
]
