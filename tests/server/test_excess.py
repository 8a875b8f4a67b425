"""Choice of what must go: whose streams go where there are too many."""

from __future__ import annotations

from fanout.server.excess import list_excess
from fanout.server.live_comparisons import LiveComparison


def make(account: str | None, count: int) -> list[LiveComparison]:
    return [LiveComparison(f"{account}-{number}", account, ()) for number in range(count)]


def test_the_oldest_of_the_account_with_the_most_go_first() -> None:
    lives = [*make("small", 2), *make("large", 5), *make("middle", 3)]

    excess = list_excess(lives, 6, lambda _: 1)
    assert [live.id for live in excess[:2]] == ["large-0", "large-1"]
    assert {live.account_id for live in excess} == {"large", "middle"}
    assert len(excess) == 4
    assert list_excess(lives, 10, lambda _: 1) == []


def test_one_account_alone_loses_its_oldest() -> None:
    lives = make(None, 4)

    assert [live.id for live in list_excess(lives, 25, lambda _: 10)] == ["None-0", "None-1"]
