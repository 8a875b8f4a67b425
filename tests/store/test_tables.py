"""Rows, as they come out of the store, have the columns of their tables."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from sqlalchemy import Table

from fanout.core.usage import USAGE_SUMS, WORK_SUMS
from fanout.store import key_tables, tables
from fanout.store.batches import BatchRow
from fanout.store.call_times import TimeKey
from fanout.store.files import FileRow
from fanout.store.history.records import AnswerRow, ComparisonRow
from fanout.store.jobs.records import JobRow
from fanout.store.keys.audit import AuditRow
from fanout.store.keys.key_store import KeyRow
from fanout.store.keys.secrets import SecretRow
from fanout.store.processes import ProcessRow
from fanout.store.shared_tables import processes
from fanout.store.usage import UsageKey
from fanout.store.votes import VoteRow


@pytest.mark.parametrize(
    ("row", "table"),
    [
        (AnswerRow, tables.answers),
        (AuditRow, key_tables.audit),
        (BatchRow, tables.batches),
        (ComparisonRow, tables.comparisons),
        (FileRow, tables.files),
        (KeyRow, key_tables.keys),
        (SecretRow, key_tables.key_secrets),
        (VoteRow, tables.votes),
    ],
)
def test_the_fields_of_a_row_are_the_columns_of_its_table_in_their_order(row: type[NamedTuple], table: Table) -> None:
    assert row._fields == tuple(table.c.keys())


def test_a_job_row_has_the_columns_of_its_table_and_then_the_processes_that_run_it() -> None:
    assert JobRow._fields == (*tables.jobs.c.keys(), "owners")


def test_a_process_row_has_the_columns_of_its_table_and_then_the_time_at_which_it_was_read() -> None:
    assert ProcessRow._fields == (*processes.c.keys(), "now")


def test_the_columns_of_usage_are_its_key_and_the_sums() -> None:
    assert (*UsageKey._fields, *USAGE_SUMS) == tuple(tables.usage.c.keys())


def test_the_columns_of_call_times_are_its_key_and_a_step_with_its_number_of_calls() -> None:
    assert (*TimeKey._fields, "step", "calls") == tuple(tables.call_times.c.keys())


def test_the_columns_of_a_jobs_counts_hold_every_sum_of_work() -> None:
    assert set(WORK_SUMS) <= set(tables.job_counts.c.keys())
