"""Questions answered by this process, and kept in the log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from fanout import api
from fanout.cli.ask.backend import AnswerEvent, PlannedAnswer
from fanout.cli.ask.question import AskQuestion
from fanout.cli.model_choice import expand_models, list_local_models
from fanout.config.catalogue import Catalogue
from fanout.core.json_text import JsonObject
from fanout.core.merge import merge
from fanout.core.schema import Call, Delta, Failure, Outcome
from fanout.dispatch.default_models import choose_default_models
from fanout.dispatch.dispatcher import Dispatcher
from fanout.dispatch.fusion_plan import move_call
from fanout.rendering.comparison import render_choice, render_comparison
from fanout.rendering.errors import render_all_failed


class LocalModels:
    """The models of this configuration."""

    def __init__(self, dispatcher: Dispatcher, outcomes: list[Outcome]) -> None:
        """Use an open dispatcher; `outcomes` takes those of the last question, and is filled by an observer of it."""
        self._dispatcher, self._outcomes = dispatcher, outcomes
        self._calls: Sequence[Call] = ()
        self._deadline_s = 0.0

    async def choose_models(self) -> tuple[tuple[str, ...], str]:
        chosen = choose_default_models(self._dispatcher.settings)
        return chosen.names, chosen.reason

    async def expand(self, words: tuple[str, ...]) -> tuple[str, ...]:
        catalogue: Catalogue = self._dispatcher.catalogue
        return tuple(expand_models(words, lambda: list_local_models(catalogue)))

    async def plan(self, question: AskQuestion) -> Mapping[int, PlannedAnswer]:
        calls: list[Call] = []
        for models, messages in question.split():
            options = {"system": question.system, "extra_body": question.extra_body, **question.parameters}
            request = api.build_request(str(question.content) if messages is None else messages, list(models), **options)
            # Each conversation is a request of its own: its answers stand behind those of the others.
            entries = calls[-1].entry + 1 if calls else 0
            calls += [move_call(call, len(calls), entries) for call in self._dispatcher.plan(request)]
        await self._dispatcher.prepare(calls)  # training the embedded models is not part of an answer's time
        self._calls, self._deadline_s = calls, question.timeout_s or self._dispatcher.settings.environment.timeout_s
        self._outcomes.clear()
        return {
            call.index: PlannedAnswer(
                call.target.label,
                call.target.label if call.fusion else call.target.name,
                call.sample,
                is_member=call.is_member,
            )
            for call in calls
        }

    async def stream(self) -> AsyncGenerator[AnswerEvent]:
        async with aclosing(self._dispatcher.stream(self._calls, deadline_s=self._deadline_s)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    yield AnswerEvent(piece.call_index, piece.text)
                else:
                    choice = merge([piece], created=time.time(), total_s=0).choices[0]
                    yield AnswerEvent(piece.call.index, "", dict(render_choice(choice)))

    async def complete(self) -> tuple[JsonObject, bool]:
        created, began = time.time(), time.monotonic()  # the clock of `created` may be set back meanwhile
        outcomes = await self._dispatcher.run(self._calls, deadline_s=self._deadline_s)
        failed = sum(isinstance(outcome.result, Failure) for outcome in outcomes)
        if failed == len(outcomes):
            return {"error": render_all_failed(outcomes).error}, False
        comparison = merge(outcomes, created=created, total_s=time.monotonic() - began)
        return dict(render_comparison(comparison)), not failed
