"""All tables of the store, the same on SQLite and PostgreSQL.

`migrations/` creates them. Times are Unix seconds, an empty `account_id` is none, a `result` is `answered` or the failure's
kind. Longer than other modules: whoever reads a query, a backup or a migration wants the schema on one page; but callers' keys
are in `key_tables.py`, what processes tell each other in `shared_tables.py`, pages of the history in `history/pages.py`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.sql.expression import TextClause, text

from fanout.store.engine.text_columns import StorableText

metadata = MetaData()
PARTIAL_INDEXES: dict[str, TextClause] = {}
"""Conditions by the index's name. Not options of the index yet: for these SQLAlchemy imports every dialect named in one."""


def _unit_columns() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in ("job", "item", "entry", "repeat")]


def _usage_columns() -> list[Column[int] | Column[float]]:
    # The known figures are NULL while none is known: SUM() skips NULL, and returns it if there is nothing else.
    return [
        *(Column(name, BigInteger) for name in ("input_tokens", "output_tokens", "cached_tokens")),
        Column("unknown_usage", BigInteger, nullable=False),
        Column("cost_usd", Double),
        Column("cost_unknown", BigInteger, nullable=False),
    ]


def _partial_index(name: str, column: str, condition: str) -> Index:
    # Over some rows only: it stays small, and costs the others nothing when they are written.
    PARTIAL_INDEXES[name] = text(condition)
    return Index(name, column)


usage = Table(
    "usage",
    metadata,
    # The start of the minute, so that days and hours are plain divisions on every database.
    Column("minute", BigInteger, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("model", StorableText, nullable=False),  # as the caller wrote it; empty: not known to exist
    Column("provider", StorableText, nullable=False),  # empty: no model has that name
    Column("upstream_model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),
    Column("calls", BigInteger, nullable=False),
    *_usage_columns(),
    PrimaryKeyConstraint("minute", "account_id", "model", "provider", "upstream_model", "result", name="usage_key"),
    sqlite_with_rowid=False,  # the rows stand in the tree of their key: half the file
)
"""Sums of calls by minute, account, model and result."""

call_times = Table(
    "call_times",
    metadata,
    Column("period", BigInteger, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("provider", StorableText, nullable=False),
    Column("figure", StorableText, nullable=False),
    Column("step", BigInteger, nullable=False),  # of a scale of durations
    Column("calls", BigInteger, nullable=False),
    PrimaryKeyConstraint("period", "account_id", "provider", "figure", "step", name="call_times_key"),
    sqlite_with_rowid=False,
)
"""Numbers of calls by period, account, provider and how long they took."""

jobs = Table(
    "jobs",
    metadata,
    # Short, because it is repeated in every row of a job.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("spec", StorableText, nullable=False),  # JSON: the request
    Column("fingerprint", StorableText, nullable=False),  # JSON: what its models stood for in the configuration
    Column("state", StorableText, nullable=False),
    Column("reason", StorableText),  # of its state, for people
    Column("items", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("rate", Double),  # units a second, recently
    Column("owner", StorableText),  # the process that runs it, until when, and the number of its lease, which writers show
    Column("lease_until", Double),
    Column("epoch", BigInteger, nullable=False),
    Column("forked_from", StorableText),
    Column("final_state", StorableText),  # in which all that share it are to leave it, with `reason`; NULL: they go on
    _partial_index("jobs_open", "created", "state IN ('loading', 'queued', 'running', 'cancelling')"),
)
"""Batch jobs."""

items = Table(
    "items",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),  # from 0, in the order of the input
    Column("line", BigInteger, nullable=False),  # of the input, for people
    Column("custom_id", StorableText),
    Column("body", StorableText),  # JSON; NULL: it stands in `texts`
    Column("digest", LargeBinary),
    PrimaryKeyConstraint("job", "item", name="items_key"),
)
"""The inputs of jobs, a row for each item."""

units = Table(
    "units",
    metadata,
    *_unit_columns(),
    Column("state", StorableText, nullable=False),  # `done`, `failed`, or `open`: to be sent again. No row: not ended yet
    Column("attempt", BigInteger, nullable=False),  # the one that ended it
    Column("ended", Double, nullable=False),
    Column("model", StorableText, nullable=False),  # the entry's label
    Column("result", StorableText, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("total_ms", BigInteger, nullable=False),
    Column("answer", LargeBinary),  # a digest of the text, to find answers that differ
    Column("record", StorableText),  # JSON; NULL: it stands in `texts`
    Column("digest", LargeBinary),
    Column("cache_key", LargeBinary),
    Column("cached_from", StorableText),  # the job that the answer was given to
    PrimaryKeyConstraint("job", "item", "entry", "repeat", name="units_key"),
    _partial_index("units_cache", "cache_key", "cache_key IS NOT NULL"),
)
"""The ends of units: exactly one row each, written when it ends."""

attempts = Table(
    "attempts",
    metadata,
    *_unit_columns(),
    Column("attempt", BigInteger, nullable=False),  # from 1
    Column("epoch", BigInteger, nullable=False),  # of the writer's lease
    Column("started", Double, nullable=False),
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="attempts_key"),
    sqlite_with_rowid=False,
)
"""Every call that may have been sent, written before it is. Rows are never changed."""

failures = Table(
    "failures",
    metadata,
    *_unit_columns(),
    Column("attempt", BigInteger, nullable=False),
    Column("ended", Double, nullable=False),
    Column("kind", StorableText, nullable=False),
    Column("failure", StorableText, nullable=False),  # JSON
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="failures_key"),
    sqlite_with_rowid=False,
)
"""The failures of attempts. Rows are never changed: an attempt that neither failed nor ended its unit was cut off."""

economy_batches = Table(
    "economy_batches",
    metadata,
    Column("token", StorableText, primary_key=True),
    Column("job", BigInteger, nullable=False),
    Column("provider", StorableText, nullable=False),
    Column("model", StorableText, nullable=False),
    Column("submitted", Double, nullable=False),
    Column("vendor_id", StorableText),  # NULL: it is not known whether the provider has it
    Column("units", StorableText, nullable=False),  # JSON: of each its item, entry, repeat and attempt
    Index("economy_batches_job", "job"),
)
"""Units of jobs at providers' own batch APIs, a row for each batch there. A row is deleted once all its units have ended."""

job_counts = Table(
    "job_counts",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),
    Column("calls", BigInteger, nullable=False),  # units
    Column("attempts", BigInteger, nullable=False),
    *_usage_columns(),
    Column("total_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("job", "model", "result", name="job_counts_key"),
    sqlite_with_rowid=False,
)
"""The sums of jobs, updated as their units end, so that progress needs no scan."""

scorers = Table(
    "scorers",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("scorer", BigInteger, nullable=False),  # from 1, within the job
    Column("label", StorableText, nullable=False),
    Column("version", StorableText, nullable=False),
    Column("declaration", StorableText, nullable=False),  # JSON
    Column("is_bounded", Boolean, nullable=False),  # its scores lie within 0 … 1
    Column("is_higher_better", Boolean, nullable=False),
    Column("declared", Double, nullable=False),  # the last time: of the versions of one label, the latest counts
    PrimaryKeyConstraint("job", "scorer", name="scorers_key"),
    UniqueConstraint("job", "label", "version", name="scorers_version"),
)
"""The scorers of jobs. A label may have several versions, for scores are never changed."""

scores = Table(
    "scores",
    metadata,
    *_unit_columns(),
    Column("scorer", BigInteger, nullable=False),
    Column("value", Double),  # NULL: there is none, and `explanation` tells why
    Column("explanation", StorableText),
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "scorer", name="scores_key"),
    sqlite_with_rowid=False,
)
"""The scores of answers, one for each scorer. Rows are never changed."""

texts = Table("texts", metadata, Column("digest", LargeBinary, primary_key=True), Column("text", StorableText, nullable=False))
"""Long texts, each once, by its SHA-256."""

batches = Table(
    "batches",
    metadata,
    Column("id", StorableText, primary_key=True),  # also its job's, once its input has been validated
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("request", StorableText, nullable=False),  # JSON
    Column("validated", Double),
    Column("errors", StorableText),  # JSON: the faults of its input; NULL: it has none, or is not validated yet
    Column("cancelling", Double),
    Column("settled", Double),  # when it reached its final state
    Column("output_file", StorableText),
    Column("error_file", StorableText),
    _partial_index("batches_unsettled", "created", "settled IS NULL"),
)
"""Batches of OpenAI's `/v1/batches`: what their jobs cannot say."""

files = Table(
    "files",
    metadata,
    Column("id", StorableText, primary_key=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("filename", StorableText, nullable=False),
    Column("purpose", StorableText, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("job", StorableText),  # the job whose results it is made of when it is read; NULL: it was uploaded
    Column("expires", Double),
    Index("files_created", "created", "id"),
)
"""Files of OpenAI's `/v1/files`."""

file_parts = Table(
    "file_parts",
    metadata,
    Column("file", StorableText, nullable=False),
    Column("part", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("file", "part", name="file_parts_key"),
)
"""The content of uploads, in parts."""

comparisons = Table(
    "comparisons",
    metadata,
    # The time in microseconds and a few random bits: ordered by time, and known before it is written.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("request_id", StorableText, nullable=False),
    Column("path", StorableText, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", BigInteger, nullable=False),  # of HTTP; 499: the client left
    Column("answered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    *_usage_columns(),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("total_ms", BigInteger, nullable=False),
    Column("overhead_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the body as it came
    # A long request stands in `history_texts`, under its digest. Both NULL: not kept.
    Column("request", StorableText),
    Column("request_digest", LargeBinary),
    Index("comparisons_account", "account_id", "number"),
    _partial_index("comparisons_failed", "number", "failed > 0"),
)
"""Comparisons: interactive requests that made calls."""

answers = Table(
    "answers",
    metadata,
    Column("comparison", BigInteger, nullable=False),
    Column("place", BigInteger, nullable=False),  # its index among the answers
    Column("entry", BigInteger, nullable=False),
    Column("sample", BigInteger, nullable=False),
    Column("prompt", BigInteger),  # its index, if the prompt was a list
    Column("model", StorableText, nullable=False),  # as the caller wrote it
    Column("label", StorableText, nullable=False),
    Column("provider", StorableText),
    Column("upstream_model", StorableText),
    Column("finish_reason", StorableText),
    Column("kind", StorableText),  # of the failure; NULL: it was answered
    Column("code", StorableText),
    Column("upstream_status", BigInteger),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("cost_source", StorableText),
    Column("queued_ms", BigInteger, nullable=False),
    Column("ttft_ms", BigInteger),
    Column("call_ms", BigInteger),
    Column("total_ms", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    # JSON: text, reasoning, tool calls, the failure's message; if long, in `history_texts`. Both NULL: not kept.
    Column("said", StorableText, key="content"),
    Column("said_digest", LargeBinary, key="content_digest"),
    Column("is_member", Boolean),  # called for a fusion alone; NULL: not known, as in rows from before it was kept
    Column("fusion", StorableText),  # JSON: the members that the answer was made of; NULL: it is none
    PrimaryKeyConstraint("comparison", "place", name="answers_key"),
    Index("answers_model", "model", "comparison"),
    Index("answers_label", "label", "comparison"),
    sqlite_with_rowid=False,
)
"""The answers of comparisons, also those that failed."""

comparison_metadata = Table(
    "comparison_metadata",
    metadata,
    Column("comparison", BigInteger, nullable=False),
    Column("name", StorableText, nullable=False),
    Column("value", StorableText, nullable=False),
    PrimaryKeyConstraint("comparison", "name", name="comparison_metadata_key"),
    Index("comparison_metadata_value", "name", "value", "comparison"),
    sqlite_with_rowid=False,
)
"""The metadata that callers give their comparisons."""

votes = Table(
    "votes",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", StorableText, nullable=False, unique=True),  # of the ballot
    Column("drawn", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("rater", StorableText, nullable=False),  # who votes, within the account; may be empty
    Column("kind", StorableText, nullable=False),  # `pair` or `answer`
    Column("job_id", StorableText),  # this or the next
    Column("comparison_id", StorableText),
    Column("item", BigInteger, nullable=False),  # of the job; of a comparison the index of its prompt
    # In the order in which they were shown; `repeat` is a comparison's `sample`. B is NULL for a single answer.
    Column("entry_a", BigInteger, nullable=False),
    Column("repeat_a", BigInteger, nullable=False),
    Column("model_a", StorableText, nullable=False),
    Column("entry_b", BigInteger),
    Column("repeat_b", BigInteger),
    Column("model_b", StorableText),
    Column("voted", Double),  # NULL: drawn and not voted on yet
    Column("choice", StorableText),
    Column("score", Double),
    Index("votes_account", "account_id", "number"),
    Index("votes_job", "job_id", "item"),
    Index("votes_comparison", "comparison_id"),
)
"""Ballots, each with one answer or a pair whose order was drawn, and what a person chose."""

history_texts = Table(
    "history_texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("text", StorableText, nullable=False),
    Column("day", BigInteger, nullable=False),  # of the newest comparison that has it: both are deleted together
    Index("history_texts_day", "day"),
)
"""Long requests and answers, each once, by its SHA-256. Apart from `texts`, which retention never deletes."""

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("scope", LargeBinary, primary_key=True),  # SHA-256 of the key, the path and the caller
    Column("created", Double, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of the body
    Column("status", BigInteger, nullable=False),
    Column("headers", StorableText, nullable=False),  # JSON
    Column("body", LargeBinary, nullable=False),
    Index("idempotent_answers_created", "created"),
)
"""Answers to requests with an `Idempotency-Key`, to be replayed."""
