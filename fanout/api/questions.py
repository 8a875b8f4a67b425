"""Fanout in a program: `await fanout.ask("…", models=[…])`, `fanout.ask_sync` for notebooks, `fanout.ask_stream` for pieces."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from typing_extensions import Unpack

from fanout.api.signatures import name_options
from fanout.config.settings import Settings, load_settings
from fanout.core.comparison import Comparison, CompletionChoice
from fanout.core.errors import Fault, RequestError
from fanout.core.faults import to_faults, to_json_path
from fanout.core.image_types import find_image_type
from fanout.core.json_values import TOO_LARGE, find_infinite
from fanout.core.merge import merge
from fanout.core.messages import ImagePart, Message, MessageBody, TextPart
from fanout.core.sampling import Sampling, SamplingOptions
from fanout.core.sampling_fields import validate_sampling
from fanout.core.schema import Delta
from fanout.dispatch.default_models import choose_default_models
from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
from fanout.dispatch.entries import Models, parse_entries
from fanout.dispatch.request import Request

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A text, or the messages of a conversation in OpenAI's format: `{"role": "user", "content": "…"}`."""
Image = str | Path | bytes
"""An address (`https:`, `data:`), a file's path, or the bytes of an image."""


class QuestionOptions(SamplingOptions, total=False):
    """Keyword arguments of a question."""

    system: str | None
    """A system message, for chat models."""
    images: Sequence[Image]
    """Images that belong to the last message of the user."""
    extra_body: Mapping[str, object]
    """Fields that only some providers know, such as `response_format` or `tools`; passed on."""
    strict: bool
    """Whether a parameter that a model cannot take fails its entry instead of being ignored."""


class RunOptions(QuestionOptions, total=False):
    """Keyword arguments of `ask_sync`."""

    timeout_s: float | None
    """Deadline of the whole request; by default `FANOUT_TIMEOUT_S`."""
    return_when: int | None
    """Number of entries that must have answered before the rest is cancelled."""
    settings: Settings | None
    """By default those of `load_settings()`."""


class AskOptions(RunOptions, total=False):
    """Keyword arguments of `ask` and `ask_stream`."""

    dispatcher: Dispatcher | None
    """An open one, to keep connections and limits between questions; else one is opened for this question."""


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A piece of one answer of `ask_stream`."""

    index: int
    """Place of the answer among all."""
    label: str
    text: str
    choice: CompletionChoice | None = None
    """Only in the last piece of an answer: the answer as a whole, or its failure."""


def build_request(
    prompt: Prompt,
    models: Models,
    *,
    system: str | None = None,
    images: Sequence[Image] = (),
    extra_body: Mapping[str, object] | None = None,
    strict: bool = False,
    **sampling: Unpack[SamplingOptions],
) -> Request:
    """Return the request that sends a prompt to many models.

    Args:
        prompt: a user message for chat models, a text to continue for others; or the messages of a conversation.
        models: see `Models`.
        system: a system message, for chat models.
        images: images that belong to the last message of the user.
        extra_body: fields that only some providers know.
        strict: whether a parameter that a model cannot take fails its entry instead of being ignored.
        sampling: `max_tokens`, `temperature`, …: the fields of `Sampling`.

    Raises:
        RequestError: with every unknown or wrong parameter.
    """
    faults: list[Fault] = []
    entries = parse_entries(models, faults)
    common = Sampling(**validate_sampling(sampling, "", faults))
    messages = _parse_messages([{"role": "user", "content": prompt}], faults) if images and isinstance(prompt, str) else None
    if not isinstance(prompt, str):
        messages = _parse_messages(prompt, faults)
    if messages and images:
        messages = _add_images(messages, images, faults)
    faults += [Fault(to_json_path(("extra_body", *place)), TOO_LARGE) for place in find_infinite(dict(extra_body or {}))]
    if faults:
        raise RequestError(faults)
    return Request(
        entries=entries,
        prompts=(prompt,) if isinstance(prompt, str) and messages is None else (),
        messages=messages,
        system=system,
        sampling=common,
        passthrough=dict(extra_body or {}),
        strict=strict,
    )


def _parse_messages(written: Sequence[Message | Mapping[str, Any]], faults: list[Fault]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for number, message in enumerate(written):
        try:
            messages.append(message if isinstance(message, Message) else MessageBody.model_validate(message).to_message())
        except ValidationError as error:
            found = to_faults(error, MessageBody)
            faults += [Fault(f"prompt[{number}].{fault.path}", fault.message, fault.kind) for fault in found]
    if not written:
        faults.append(Fault("prompt", "is empty: a text, or at least one message"))
    return tuple(messages)


def _add_images(messages: tuple[Message, ...], images: Sequence[Image], faults: list[Fault]) -> tuple[Message, ...]:
    """Return the messages with images behind the text of the user's last message."""
    place = max((number for number, message in enumerate(messages) if message.role == "user"), default=None)
    if place is None:
        faults.append(Fault("images", "belong to a message of the user, and there is none"))
        return messages
    content = messages[place].content
    parts = (TextPart(content),) if isinstance(content, str) else content or ()
    added = tuple(part for number, image in enumerate(images) if (part := _read_image(image, number, faults)))
    return (*messages[:place], replace(messages[place], content=(*parts, *added)), *messages[place + 1 :])


def _read_image(image: Image, number: int, faults: list[Fault]) -> ImagePart | None:
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        return ImagePart(image)
    try:
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        faults.append(Fault(f"images[{number}]", f"`{image!s}` cannot be read: {error.strerror}"))
        return None
    media_type = find_image_type(content)
    if media_type is None:
        faults.append(Fault(f"images[{number}]", "is no image that models take: PNG, JPEG, GIF or WebP"))
        return None
    return ImagePart(f"data:{media_type};base64,{base64.b64encode(content).decode()}")


@name_options(AskOptions)
async def ask(prompt: Prompt, models: Models | None = None, **options: Unpack[AskOptions]) -> Comparison:
    """Send one prompt to many models at once and return the answers side by side, failures in their places.

    Args:
        prompt: a user message for chat models, a text to continue for others; or the messages of a conversation.
        models: see `Models`; by default the set `mine`, else some that are ready, else the embedded ones.
        options: see `AskOptions`: a system message, images, sampling parameters, a deadline, …

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown or wrong parameter, or too many calls.
    """
    async with _open_question(prompt, models, options) as (opened, request, deadline_s, return_when):
        calls = opened.plan(request)
        await opened.prepare(calls)
        created, began = time.time(), time.monotonic()
        outcomes = await opened.run(calls, deadline_s=deadline_s, return_when=return_when)
        return merge(outcomes, created=created, total_s=time.monotonic() - began)


@name_options(AskOptions)
async def ask_stream(
    prompt: Prompt, models: Models | None = None, **options: Unpack[AskOptions]
) -> AsyncGenerator[AnswerPiece]:
    """Send one prompt to many models at once and yield the pieces of all answers as they arrive. Takes the arguments of `ask`.

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown or wrong parameter, or too many calls.
    """
    async with _open_question(prompt, models, options) as (opened, request, deadline_s, return_when):
        calls = opened.plan(request)
        await opened.prepare(calls)
        labels = {call.index: call.target.label for call in calls}
        async with aclosing(opened.stream(calls, deadline_s=deadline_s, return_when=return_when)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    if piece.text:
                        yield AnswerPiece(piece.call_index, labels[piece.call_index], piece.text)
                else:
                    (choice,) = merge([piece], created=time.time(), total_s=0).choices
                    yield AnswerPiece(choice.index, choice.label, "", choice)


_Opened = tuple[Dispatcher, Request, float, int | None]


@asynccontextmanager
async def _open_question(prompt: Prompt, models: Models | None, options: AskOptions) -> AsyncGenerator[_Opened]:
    """Open what a question needs: the dispatcher given, or one of its own that is closed at the end."""
    return_when, timeout_s = options.pop("return_when", None), options.pop("timeout_s", None)
    given, settings = options.pop("dispatcher", None), options.pop("settings", None)
    if return_when is not None and return_when < 1:
        raise RequestError([Fault("return_when", "must be at least 1, or `None` for all")])
    settings = given.settings if given else settings or load_settings()
    chosen = models if models is not None else choose_default_models(settings).names
    request = build_request(prompt, chosen, **options)  # type: ignore[misc]  # mypy: what was popped might still be there
    deadline_s = settings.environment.timeout_s if timeout_s is None else timeout_s
    async with nullcontext(given) if given else open_dispatcher(settings) as dispatcher:
        yield dispatcher, request, deadline_s, return_when


@name_options(RunOptions)
def ask_sync(prompt: Prompt, models: Models | None = None, **options: Unpack[RunOptions]) -> Comparison:
    """Call `ask` from a notebook or script, whether or not an event loop runs. It takes the same arguments, but no dispatcher.

    Raises:
        ConfigError: the configuration cannot be used.
        RequestError: an unknown or wrong parameter, or too many calls.
    """
    if "dispatcher" in options:
        raise RequestError([Fault("dispatcher", "belongs to the event loop that opened it: use `await fanout.ask(…)` there")])
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask(prompt, models, **options))
    return _run_in_thread(prompt, models, options)


def _run_in_thread(prompt: Prompt, models: Models | None, options: RunOptions) -> Comparison:
    """Run `ask` in a thread, for a running loop must not be blocked. An interrupt ends the calls at once."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def run() -> Comparison:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await ask(prompt, models, **options)

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(lambda: asyncio.run(run()))
        try:
            return future.result()
        except KeyboardInterrupt:
            # Else the thread would go on calling, and paying, until the last answer.
            for loop, task in running:
                loop.call_soon_threadsafe(task.cancel)
            raise
