"""What is said of each endpoint: the models of its answers, its statuses, its examples. A file for each dialect.

A new dialect: a file with its `OPERATIONS`, and its name below.
"""

from __future__ import annotations

from fanout.server.openapi.operations import batch
from fanout.server.openapi.operations.legacy import Operations

OPERATIONS: Operations = batch.OPERATIONS
