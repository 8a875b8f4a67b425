"""The tables, the same on SQLite and PostgreSQL. `migrations/` makes them; a test holds the two against each other."""

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
    text,
)

from fanout.store.engine.text_columns import StorableText

metadata = MetaData()

usage = Table(
    "usage",
    metadata,
    # Unix seconds of its start: days and hours are plain divisions, on every database.
    Column("minute", BigInteger, nullable=False),
    Column("account_id", StorableText, nullable=False),  # empty: nobody's
    Column("model", StorableText, nullable=False),  # as the caller wrote it
    Column("provider", StorableText, nullable=False),  # empty: no model has that name
    Column("upstream_model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind: a new kind needs no new column
    Column("calls", BigInteger, nullable=False),
    # Sums over what is known, NULL while nothing is: SUM() passes over NULL and gives it where there is nothing else.
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "account_id", "model", "provider", "upstream_model", "result", name="usage_key"),
    sqlite_with_rowid=False,  # the rows stand in their key's own tree: half the file
)
"""Calls by minute, account and model, once for every way in which they ended."""

jobs = Table(
    "jobs",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),  # short: it stands in every row of a job
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),  # Unix seconds, as every time here
    Column("account_id", StorableText, nullable=False),  # empty: nobody's
    Column("spec", StorableText, nullable=False),  # JSON: what was asked
    Column("fingerprint", StorableText, nullable=False),  # JSON: what that meant in the configuration it began with
    Column("state", StorableText, nullable=False),
    Column("reason", StorableText),  # why it is in that state, for people
    Column("items", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("rate", Double),  # units a second, of late
    # Who runs it, until when, and how many had it before: whoever writes for it shows that number.
    Column("owner", StorableText),
    Column("lease_until", Double),
    Column("epoch", BigInteger, nullable=False),
    Column("forked_from", StorableText),
)
"""Batch jobs."""

items = Table(
    "items",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),  # from 0, in the order of the input
    Column("line", BigInteger, nullable=False),  # of the input, for people
    Column("custom_id", StorableText),
    Column("body", StorableText),  # JSON; NULL where it stands in `texts`
    Column("digest", LargeBinary),
    PrimaryKeyConstraint("job", "item", name="items_key"),
)
"""What a job asks: its input, a row each."""

units = Table(
    "units",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("state", StorableText, nullable=False),  # `done`, `failed`, or `open`: to be asked once more. No row: not asked yet
    Column("attempt", BigInteger, nullable=False),  # the one that ended it
    Column("ended", Double, nullable=False),
    Column("model", StorableText, nullable=False),  # the entry's label
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_usd", Double),
    Column("total_ms", BigInteger, nullable=False),
    Column("answer", LargeBinary),  # digest of the text: the same answer has the same
    Column("record", StorableText),  # JSON; NULL where it stands in `texts`
    Column("digest", LargeBinary),
    Column("cache_key", LargeBinary),
    Column("cached_from", StorableText),  # the job whose answer this is
    PrimaryKeyConstraint("job", "item", "entry", "repeat", name="units_key"),
    Index(
        "units_cache", "cache_key", sqlite_where=text("cache_key IS NOT NULL"), postgresql_where=text("cache_key IS NOT NULL")
    ),
)
"""How each question of a job to one model ended: exactly one row each, written once it has."""

attempts = Table(
    "attempts",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),  # from 1
    Column("epoch", BigInteger, nullable=False),  # the job's, when it was made
    Column("started", Double, nullable=False),
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="attempts_key"),
    sqlite_with_rowid=False,
)
"""Every call that may have been sent, written before it was. Only ever added to."""

failures = Table(
    "failures",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("ended", Double, nullable=False),
    Column("kind", StorableText, nullable=False),
    Column("failure", StorableText, nullable=False),  # JSON
    PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="failures_key"),
    sqlite_with_rowid=False,
)
"""How attempts failed. Only ever added to: an attempt without a failure that did not end its unit was cut off."""

job_counts = Table(
    "job_counts",
    metadata,
    Column("job", BigInteger, nullable=False),
    Column("model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind
    Column("calls", BigInteger, nullable=False),  # units
    Column("attempts", BigInteger, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    Column("total_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("job", "model", "result", name="job_counts_key"),
    sqlite_with_rowid=False,
)
"""How far a job is, kept as its units end: whoever asks for it scans nothing."""

texts = Table(
    "texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("text", StorableText, nullable=False),
)
"""What is long, once, by its SHA-256."""

files = Table(
    "files",
    metadata,
    Column("id", StorableText, primary_key=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("filename", StorableText, nullable=False),
    Column("purpose", StorableText, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("job", StorableText),  # whose results it is made of, when it is read; NULL: it was uploaded
    Column("expires", Double),
    Index("files_created", "created", "id"),
)
"""Files as OpenAI's `/v1/files` has them."""

file_parts = Table(
    "file_parts",
    metadata,
    Column("file", StorableText, nullable=False),
    Column("part", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("file", "part", name="file_parts_key"),
)
"""What was uploaded, in pieces."""

batches = Table(
    "batches",
    metadata,
    Column("id", StorableText, primary_key=True),  # also its job's, once its input is found good
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("request", StorableText, nullable=False),  # JSON: what was asked
    Column("validated", Double),
    Column("errors", StorableText),  # JSON: what is wrong with its input; NULL: nothing, or not looked at yet
    Column("cancelling", Double),
    Column("settled", Double),  # nothing more will change
    Column("output_file", StorableText),
    Column("error_file", StorableText),
    Index("batches_unsettled", "created", sqlite_where=text("settled IS NULL"), postgresql_where=text("settled IS NULL")),
)
"""Batches as OpenAI's `/v1/batches` has them: what their jobs do not say."""

comparisons = Table(
    "comparisons",
    metadata,
    # Its time in microseconds and a few bits of chance: in the order of time, and known before it is written.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),  # empty: nobody's
    Column("request_id", StorableText, nullable=False),
    Column("path", StorableText, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", BigInteger, nullable=False),  # HTTP's; 499: the client left
    Column("answered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    Column("total_ms", BigInteger, nullable=False),
    Column("overhead_ms", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the body as it came
    # What is long stands in `history_texts`, under its digest. Both NULL: not kept.
    Column("request", StorableText),
    Column("request_digest", LargeBinary),
    Index("comparisons_account", "account_id", "number"),
    Index("comparisons_failed", "number", sqlite_where=text("failed > 0"), postgresql_where=text("failed > 0")),
)
"""Interactive requests that made calls."""

answers = Table(
    "answers",
    metadata,
    Column("comparison", BigInteger, nullable=False),
    Column("place", BigInteger, nullable=False),  # its index among the answers
    Column("entry", BigInteger, nullable=False),
    Column("sample", BigInteger, nullable=False),
    Column("prompt", BigInteger),  # which, where the prompt was a list
    Column("model", StorableText, nullable=False),  # as the caller wrote it
    Column("label", StorableText, nullable=False),
    Column("provider", StorableText),
    Column("upstream_model", StorableText),
    Column("finish_reason", StorableText),
    Column("kind", StorableText),  # the failure's; NULL: it was answered
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
    # JSON: text, reasoning, tool calls, the failure's message. What is long stands in `history_texts`. Both NULL: not kept.
    Column("said", StorableText, key="content"),
    Column("said_digest", LargeBinary, key="content_digest"),
    PrimaryKeyConstraint("comparison", "place", name="answers_key"),
    Index("answers_model", "model", "comparison"),
    Index("answers_label", "label", "comparison"),
    sqlite_with_rowid=False,
)
"""What came of each: a row for every answer, also for one that failed."""

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
"""The caller's own words on a comparison."""

history_texts = Table(
    "history_texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("text", StorableText, nullable=False),
    Column("day", BigInteger, nullable=False),  # of the newest comparison that has it: with that one it goes
    Index("history_texts_day", "day"),
)
"""What is long in requests and answers, once, by its SHA-256. Apart from `texts`, which no retention takes away."""

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("scope", LargeBinary, primary_key=True),  # SHA-256 of the key, the path and who asked
    Column("created", Double, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of the body
    Column("status", BigInteger, nullable=False),
    Column("headers", StorableText, nullable=False),  # JSON
    Column("body", LargeBinary, nullable=False),
    Index("idempotent_answers_created", "created"),
)
"""Answers to requests with an `Idempotency-Key`, to be given again."""
