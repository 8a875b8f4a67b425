"""A hook that fails as the prompt tells it to, before a call."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import cast

from fanout import Hook, adapters

CREATED: list[FailingHook] = []


def create() -> FailingHook:
    """See `docs/operations.md`."""
    CREATED.append(FailingHook())
    return CREATED[-1]


class FailingHook(Hook):
    async def before(self, call: adapters.Call) -> adapters.Query | None:
        text = call.query.prompt or str(call.query.messages)
        if "hang" in text:
            await asyncio.sleep(60)
        if "cancel" in text:
            raise asyncio.CancelledError
        if "exit" in text:
            sys.exit("a bug in the hook")
        if "crash" in text:
            raise RuntimeError("a bug in the hook")
        return cast("adapters.Query", "not a query") if "wrong" in text else None

    async def after(self, call: adapters.Call, answer: adapters.Completion) -> adapters.Completion | None:
        if "late-odd" in str(call.query):
            return replace(answer, choices=cast("tuple[adapters.Choice, ...]", ("not a choice",)))
        if "late" in str(call.query):
            raise RuntimeError("a bug in the hook")
        return None
