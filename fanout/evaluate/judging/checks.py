"""Checks of judges before a job begins: a judge that cannot be called must not show only when everything is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fanout.core.errors import Fault, RequestError
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.entries import Entry
from fanout.dispatch.request import Request

if TYPE_CHECKING:
    from fanout.evaluate.scorers import Scorer


def check_judges(dispatcher: Dispatcher, scorers: Sequence[Scorer]) -> None:
    """Refuse judges that cannot be called, each by its place.

    Raises:
        RequestError: with every fault.
    """
    faults = []
    for index, scorer in enumerate(scorers):
        if scorer.type == "judge":
            name = str(scorer.model_dump()["model"])
            calls = dispatcher.plan(Request(entries=(Entry(name),), prompts=("",)))
            faults += [Fault(f"scorers[{index}].model", call.refusal.message) for call in calls if call.refusal]
    if faults:
        raise RequestError(faults)
