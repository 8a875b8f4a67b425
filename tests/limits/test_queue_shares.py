"""Shares of a queue: an owner's waiting calls are bounded, and others are not concerned."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from fanout.core.errors import ProviderError
from fanout.core.schema import QueueShare
from fanout.limits.queue_shares import QueueShares


def test_an_owner_waits_in_its_share_of_the_places_and_has_them_again_when_it_leaves() -> None:
    shares, own, other = QueueShares(4), QueueShare("key_1", 0.5), QueueShare("key_2", 0.01)
    with ExitStack() as stack:
        for share in (own, own, other, None, None):
            stack.enter_context(shares.hold(share))
        for share in (own, other):
            with pytest.raises(ProviderError, match="as many as its share of the queue") as raised, shares.hold(share):
                pass
            assert (raised.value.failure.kind, raised.value.failure.code) == ("rate_limit", "queue_too_long")
    for share in (own, other):
        with shares.hold(share):
            pass
