"""Questions answered by a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fanout.cli.ask.backend import AnswerEvent, PlannedAnswer
from fanout.cli.ask.question import AskQuestion
from fanout.cli.client import ServerClient
from fanout.cli.model_choice import expand_models, has_pattern, list_remote_models, split_words
from fanout.core.fusion_syntax import is_fusion
from fanout.core.json_text import JsonObject
from fanout.dispatch.default_models import EMBEDDED_SET, MAX_DEFAULT_MODELS

EMBEDDED_PROVIDER = "local"


class RemoteModels:
    """The models of a server."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._bodies: list[JsonObject] = []
        self._sizes: list[int] = []
        """Answers of each body."""
        self._is_plain = True

    async def choose_models(self) -> tuple[tuple[str, ...], str]:
        rows = (await self._client.get("/v1/models", ready="true"))["data"]
        by_provider = {row["provider"]: row["id"] for row in reversed(rows) if row["provider"] != EMBEDDED_PROVIDER}
        names = tuple(reversed(by_provider.values()))[:MAX_DEFAULT_MODELS]
        if names:
            return names, "a ready model of each of the server's providers"
        return (EMBEDDED_SET,), "the server's toys, because no provider is ready there"

    async def expand(self, words: tuple[str, ...]) -> tuple[str, ...]:
        if not has_pattern(words):
            return tuple(split_words(words))
        models = await list_remote_models(self._client)
        return tuple(expand_models(words, lambda: models))

    async def plan(self, question: AskQuestion) -> Mapping[int, PlannedAnswer]:
        self._is_plain, self._bodies, self._sizes = question.is_plain, [], []
        planned: dict[int, PlannedAnswer] = {}
        common = {name: value for name, value in {"system": question.system, "timeout_s": question.timeout_s}.items() if value}
        for models, messages in question.split():
            body = {"model": list(models), **question.parameters}
            # Only the server knows its sets. A dry run takes a prompt, whatever will be sent.
            calls = await self._client.plan({**body, "prompt": "x"})
            for call in calls:
                label, is_member = call["label"], call.get("is_member", False)
                model = label if is_fusion(label) else call["model"]
                planned[len(planned)] = PlannedAnswer(label, model, call["sample"], is_member=is_member)
            self._sizes.append(len(calls))
            if messages is None:
                self._bodies.append({**body, **common, "prompt": question.content})
            else:
                self._bodies.append({**body, **question.extra_body, **_to_chat_fields(common, messages)})
        return planned

    async def stream(self) -> AsyncGenerator[AnswerEvent]:
        if self._is_plain:
            async for choice in self._client.stream(self._bodies[0]):
                yield _to_event(choice, choice["text"], 0)
            return
        events: asyncio.Queue[AnswerEvent | Exception | None] = asyncio.Queue(maxsize=1000)

        async def follow(body: JsonObject, offset: int) -> None:
            end = None
            try:
                async with aclosing(self._client.stream_chat(body)) as choices:
                    async for choice in choices:
                        await events.put(_to_event(choice, choice.get("delta", {}).get("content") or "", offset))
            except Exception as error:
                end = error
            await events.put(end)

        # Not a group of tasks, which would wrap an error, or the end of a reader who leaves early, in a group of errors.
        offsets = [sum(self._sizes[:place]) for place in range(len(self._sizes))]
        tasks = [asyncio.create_task(follow(body, offset)) for body, offset in zip(self._bodies, offsets, strict=True)]
        try:
            running = len(tasks)
            while running:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                if event is None:
                    running -= 1
                else:
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def complete(self) -> tuple[JsonObject, bool]:
        path = "/v1/completion" if self._is_plain else "/v1/chat/completions"
        any_answered, answer = await self._client.complete(self._bodies[0], path)
        return answer, any_answered and not any(choice["error"] for choice in answer["choices"])


def _to_chat_fields(common: JsonObject, messages: list[JsonObject]) -> JsonObject:
    head: list[JsonObject] = [{"role": "system", "content": common["system"]}] if "system" in common else []
    return {**{name: value for name, value in common.items() if name != "system"}, "messages": [*head, *messages]}


def _to_event(choice: JsonObject, text: str, offset: int) -> AnswerEvent:
    is_end = "timing" in choice or "error" in choice  # the last piece of this choice
    return AnswerEvent(choice["index"] + offset, text, choice if is_end else None)
