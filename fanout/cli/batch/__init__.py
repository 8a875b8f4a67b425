"""`fanout batch`: run, resume and export batch jobs."""

from fanout.cli.batch.commands import batch

__all__ = ["batch"]
