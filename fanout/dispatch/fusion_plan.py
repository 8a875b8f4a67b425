"""Planning of fusions: what their calls are sent, and which members would be called in vain. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.config.catalogue import Model
from fanout.core.fusion import FusedMembers
from fanout.core.json_text import JsonObject
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Failure
from fanout.dispatch.entries import FusionEntry
from fanout.dispatch.fusing import describe_version

NOT_FUSED = ("echo", "suffix")
"""Sampling parameters that would concern the fusion's own prompt."""
NOT_PASSED = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")
"""Fields that are not sent with a fusion's prompt: it makes a text of texts."""
Place = tuple[int, int | None, int]
"""Entry, prompt and sample of a call."""


def make_fusion(entry: FusionEntry, model: Model | None) -> FusedMembers:
    """Return the fusion of an entry whose members have their positions."""
    context_tokens = model.row.max_context_length if model and model.row else None
    return FusedMembers(entry.members, entry.template, describe_version(entry.template), context_tokens)


def drop_unfused(sampling: Sampling, passthrough: JsonObject) -> tuple[Sampling, JsonObject, tuple[str, ...]]:
    """Return the parameters that a fusion's own call is sent, and the names of those left out."""
    unfused = [name for name in NOT_FUSED if getattr(sampling, name) is not None]
    unsent = [name for name in NOT_PASSED if passthrough.get(name) is not None]
    if unfused:
        sampling = replace(sampling, **dict.fromkeys(unfused))
    if unsent:
        passthrough = {name: value for name, value in passthrough.items() if name not in unsent}
    return sampling, passthrough, (*unfused, *unsent)


def list_member_places(call: Call) -> list[Place]:
    """Return the places of the calls whose answers a call is made of."""
    return [(entry, call.prompt_index, call.sample) for entry in call.fusion.of] if call.fusion else []


def spare_members(calls: list[Call]) -> list[Call]:
    """Return the calls with those refused whose answers no fusion could use, because its own call is refused."""
    wanted: set[Place] = set()
    useless: dict[Place, Failure] = {}
    for call in calls:
        if call.fusion and call.refusal is None:
            wanted.update(list_member_places(call))
        elif call.fusion and call.refusal:
            message = f"not called: its answer was for `{call.target.label}`, which cannot be made: {call.refusal.message}"
            useless |= dict.fromkeys(list_member_places(call), replace(call.refusal, message=message))
    if not useless:
        return calls
    return [_refuse_useless(call, wanted, useless) for call in calls]


def _refuse_useless(call: Call, wanted: set[Place], useless: dict[Place, Failure]) -> Call:
    place = (call.entry, call.prompt_index, call.sample)
    if call.refusal or not call.is_member or place in wanted or place not in useless:
        return call
    return replace(call, refusal=useless[place])


def count_entries(calls: Sequence[Call]) -> int:
    """Return the number of entries of a request, without those that are called for fusions alone."""
    return max((call.entry + 1 for call in calls if not call.is_member), default=0)


def move_call(call: Call, answers: int, entries: int) -> Call:
    """Return a call behind the answers and entries of another request."""
    fusion = call.fusion and replace(call.fusion, of=tuple(entry + entries for entry in call.fusion.of))
    return replace(call, index=call.index + answers, entry=call.entry + entries, fusion=fusion)
