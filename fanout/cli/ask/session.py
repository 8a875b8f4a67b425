"""Questions one after the other: shown, checked against a schema, and kept in the log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager

from fanout.cli.answer_view import AnswerView, build_labels
from fanout.cli.ask.answer_schema import AnswerSchema
from fanout.cli.ask.backend import AskBackend, PlannedAnswer
from fanout.cli.ask.location import AskLocation
from fanout.cli.ask.question import ALL_FAILED, ANSWERED, LEFT, AskQuestion
from fanout.cli.log.last_answers import LastAnswers
from fanout.cli.log.record import AskLog
from fanout.cli.options import load_settings, read_server_key
from fanout.core.json_text import JsonObject


class AskSession:
    """The backend of one command, and the log that keeps its questions."""

    def __init__(self, backend: AskBackend, log: AskLog | LastAnswers | None, schema: AnswerSchema | None = None) -> None:
        self.backend, self.log, self.schema = backend, log, schema
        self._planned: Mapping[int, PlannedAnswer] = {}

    async def show(self, question: AskQuestion, view: AnswerView) -> bool:
        """Ask, show the answers while they are written, and return whether every model answered as it should."""
        await self._plan(question)
        began = time.time(), time.monotonic()
        try:
            with view:
                view.begin(build_labels((index, one.label, one.model, one.sample) for index, one in self._planned.items()))
                async with aclosing(self.backend.stream()) as events:
                    async for event in events:
                        if event.text:
                            view.add(event.index, event.text)
                        if event.choice is not None:
                            view.finish(event.index, self._check(view.answers[event.index].text, event.choice))
        finally:  # what was interrupted may have been paid for all the same
            ended = sum(answer.choice is not None for answer in view.answers.values())
            await self._keep(question, began, LEFT if ended < len(self._planned) else self._get_status(view.failed))
        return not view.failed

    async def complete(self, question: AskQuestion) -> tuple[JsonObject, bool]:
        """Ask, and return what the server would answer, and whether every model answered as it should."""
        await self._plan(question)
        began, status = (time.time(), time.monotonic()), LEFT
        try:
            answer, is_good = await self.backend.complete()
            status = ALL_FAILED if "error" in answer else ANSWERED
        finally:
            await self._keep(question, began, status)
        texts = [_read_text(choice) for choice in answer.get("choices", ()) if not choice["error"]]
        return answer, is_good and not (self.schema and any(map(self.schema.find_fault, texts)))

    def list_answers(self, view: AnswerView) -> dict[str, str]:
        """Return the text of each model that answered the last question; of several samples the first."""
        firsts = {index: one.model for index, one in self._planned.items() if not (one.sample or one.is_member)}
        return {model: view.answers[index].text for index, model in firsts.items() if view.answers[index].failed is False}

    async def _plan(self, question: AskQuestion) -> None:
        self._planned = await self.backend.plan(question)

    def _get_status(self, failed: int) -> int:
        return ALL_FAILED if failed == len(self._planned) else ANSWERED

    def _check(self, text: str, choice: JsonObject) -> JsonObject:
        """Return the end of an answer; one that does not fit the schema is a failure."""
        fault = self.schema.find_fault(text) if self.schema and not choice["error"] else None
        if fault is None:
            return choice
        message = f"the answer does not fit --schema: {fault}"
        return {**choice, "error": {"kind": "malformed", "code": "schema_mismatch", "message": message}}

    async def _keep(self, question: AskQuestion, began: tuple[float, float], status: int) -> None:
        if self.log:
            await self.log.keep(question, created=began[0], total_s=time.monotonic() - began[1], status=status)


def _read_text(choice: JsonObject) -> str:
    return choice["text"] if "text" in choice else choice["message"]["content"] or ""


@asynccontextmanager
async def open_session(location: AskLocation, schema: AnswerSchema | None, *, is_logging: bool) -> AsyncGenerator[AskSession]:
    """Open what answers at a location.

    Raises:
        ConfigError: the configuration cannot be used.
        ServerError: no server answers there.
    """
    if location.server:
        from fanout.cli.ask.remote_models import RemoteModels
        from fanout.cli.client import open_client

        async with open_client(location.server, read_server_key(location.env_file)) as client:
            # The server has a history of its own.
            yield AskSession(RemoteModels(client), LastAnswers(client) if is_logging else None, schema)
        return
    # Imported only here: it loads every adapter, which `--server` does not need.
    from fanout.cli.ask.local_models import LocalModels
    from fanout.core.schema import Outcome, Retry
    from fanout.dispatch.dispatcher import open_dispatcher

    settings = load_settings(location.config_file, location.env_file)
    outcomes: list[Outcome] = []

    def collect(event: Outcome | Retry) -> None:
        if isinstance(event, Outcome):
            outcomes.append(event)

    async with open_dispatcher(settings, [collect]) as dispatcher:
        yield AskSession(LocalModels(dispatcher, outcomes), AskLog(settings, outcomes) if is_logging else None, schema)
