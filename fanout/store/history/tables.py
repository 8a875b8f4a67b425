"""The tables of comparisons."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, text

from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText

comparisons = Table(
    "comparisons",
    metadata,
    # The time in microseconds and a few random bits: ordered by time, and known before it is written.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", StorableText, nullable=False, unique=True),
    Column("created", Double, nullable=False),
    Column("account_id", StorableText, nullable=False),  # empty: none
    Column("request_id", StorableText, nullable=False),
    Column("path", StorableText, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", BigInteger, nullable=False),  # of HTTP; 499: the client left
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
    # A long request stands in `history_texts`, under its digest. Both NULL: not kept.
    Column("request", StorableText),
    Column("request_digest", LargeBinary),
    Index("comparisons_account", "account_id", "number"),
    Index("comparisons_failed", "number", sqlite_where=text("failed > 0"), postgresql_where=text("failed > 0")),
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

history_texts = Table(
    "history_texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("text", StorableText, nullable=False),
    Column("day", BigInteger, nullable=False),  # of the newest comparison that has it, with which it is deleted
    Index("history_texts_day", "day"),
)
"""Long requests and answers, each once, by its SHA-256. Apart from `texts`, which retention never deletes."""
