"""What is said of each endpoint: the models of its answers, its statuses, its examples. A file for each dialect.

A new dialect: a file with its `OPERATIONS`, and its name below.
"""

from __future__ import annotations

from fanout.server.openapi.operations import batch, completion, openai, scale
from fanout.server.openapi.operations.legacy import Operations

OPERATIONS: Operations = {
    route: operation for module in (completion, openai, batch, scale) for route, operation in module.OPERATIONS.items()
}
