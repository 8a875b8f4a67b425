"""The history of interactive comparisons, and answers to be replayed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("status", sa.BigInteger, nullable=False),
        sa.Column("answered", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("unknown_usage", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Double),
        sa.Column("cost_unknown", sa.BigInteger, nullable=False),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.Column("overhead_ms", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("request", sa.Text),
        sa.Column("request_digest", sa.LargeBinary),
    )
    failed = sa.text("failed > 0")
    op.create_index("comparisons_account", "comparisons", ["account_id", "number"])
    op.create_index("comparisons_failed", "comparisons", ["number"], sqlite_where=failed, postgresql_where=failed)
    op.create_table(
        "answers",
        sa.Column("comparison", sa.BigInteger, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("sample", sa.BigInteger, nullable=False),
        sa.Column("prompt", sa.BigInteger),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("upstream_model", sa.Text),
        sa.Column("finish_reason", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("upstream_status", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cost_usd", sa.Double),
        sa.Column("cost_source", sa.Text),
        sa.Column("queued_ms", sa.BigInteger, nullable=False),
        sa.Column("ttft_ms", sa.BigInteger),
        sa.Column("call_ms", sa.BigInteger),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("said", sa.Text),
        sa.Column("said_digest", sa.LargeBinary),
        sa.PrimaryKeyConstraint("comparison", "place", name="answers_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("answers_model", "answers", ["model", "comparison"])
    op.create_index("answers_label", "answers", ["label", "comparison"])
    op.create_table(
        "comparison_metadata",
        sa.Column("comparison", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("comparison", "name", name="comparison_metadata_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("comparison_metadata_value", "comparison_metadata", ["name", "value", "comparison"])
    op.create_table(
        "history_texts",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("day", sa.BigInteger, nullable=False),
    )
    op.create_index("history_texts_day", "history_texts", ["day"])
    op.create_table(
        "idempotent_answers",
        sa.Column("scope", sa.LargeBinary, primary_key=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.BigInteger, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("idempotent_answers_created", "idempotent_answers", ["created"])
