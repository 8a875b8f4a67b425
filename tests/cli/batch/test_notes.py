"""The notes under a running job: what holds its accounts."""

from __future__ import annotations

from fanout.cli.batch.local_jobs import describe_limits
from fanout.config.providers_file import LimitsRow
from fanout.limits.limiter import Limiter


async def test_a_note_names_what_is_paused_or_keeps_failing() -> None:
    limits = Limiter("lab", LimitsRow.model_validate({"circuit": {"failures": 1, "sustained_s": 0}}))
    assert describe_limits(limits) == ""
    limits.pause("m", 30)
    limits.record_failure("big", "server_error")
    assert describe_limits(limits) == "lab: m paused, big keeps failing and is tried again from time to time"
    limits.record_failure(None, "connect_error")
    assert "big, every call keeps failing" in describe_limits(limits)
