"""Hooks: Python of the operator's own that sees every call before it is made, and its answer before anybody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol, TypeVar

from fanout.config.environment import Environment
from fanout.core.authorities import import_by_name
from fanout.core.errors import ConfigError, Fault, HookRefusalError, ProviderError
from fanout.core.schema import (
    HOOK_FAILED_CODE,
    HOOK_REFUSED_CODE,
    Answer,
    Call,
    Choice,
    Completion,
    Failure,
    FittedParameters,
    Query,
    Target,
)
from fanout.core.usage import Usage
from fanout.dispatch.in_flight import InFlightCall
from fanout.dispatch.retries import Result
from fanout.observability.logs import log
from fanout.providers.transport.pieces import cut_delta

MAX_REASON_CHARS = 500
"""Of a refusal's sentence."""
Attempt = Callable[[InFlightCall], Awaitable[Result]]
Fit = Callable[[Target, Query], FittedParameters]
Made = TypeVar("Made", Query, Completion)


class Hook(Protocol):
    """Code that a call passes before it is sent and after it was answered. Subclass it and override one method or both.

    Either may raise `HookRefusalError`, whose sentence the caller is shown. A hook that blocks the event loop holds up every
    call: what takes long runs in a thread (`asyncio.to_thread`).
    """

    async def before(self, call: Call) -> Query | None:
        """Return the query to send instead of `call.query`, or `None` to leave it; once for a call, before all attempts."""
        return None

    async def after(self, call: Call, answer: Completion) -> Completion | None:
        """Return the answer to give instead, or `None` to leave it. `call` is as it was sent."""
        return None


@dataclass(frozen=True, slots=True)
class _LoadedHook:
    """A hook of the configuration."""

    name: str
    hook: Hook
    is_open: bool
    """Whether a call goes on where the hook fails."""

    def overrides(self, method: Literal["before", "after"]) -> bool:
        return getattr(type(self.hook), method) is not getattr(Hook, method)


class Hooks:
    """The hooks of one configuration, in their order; answers pass them the other way round."""

    def __init__(self, hooks: Sequence[_LoadedHook], environment: Environment) -> None:
        self.declared, self._timeout_s = environment.hooks, environment.hook_timeout_s
        self._before = [hook for hook in hooks if hook.overrides("before")]
        self._after = [hook for hook in reversed(hooks) if hook.overrides("after")]

    def equals(self, environment: Environment) -> bool:
        """Return whether an environment declares the same."""
        return (self.declared, self._timeout_s) == (environment.hooks, environment.hook_timeout_s)

    @property
    def reads_answers(self) -> bool:
        """Whether an answer must be whole before a piece of it is passed on."""
        return bool(self._after)

    async def run(self, running: InFlightCall, attempt: Attempt, fit: Fit) -> Result:
        """Make a call between its hooks."""
        try:
            for loaded in self._before:
                call = running.sent or running.call
                query = await self._call(loaded, running, "before", Query, partial(loaded.hook.before, call))
                if query is not None and query is not call.query:
                    query = replace(query, size=None)  # that of the old text
                    running.sent = replace(call, query=query, fitted=fit(call.target, query))
            answer = await attempt(running)
            if not self._after or isinstance(answer, Failure):
                return answer
            for loaded in self._after:
                call = running.sent or running.call
                answer = (
                    await self._call(loaded, running, "after", Completion, partial(loaded.hook.after, call, answer)) or answer
                )
        except ProviderError as error:
            return error.failure
        if running.inbox is not None:  # it was held until here
            for number, choice in enumerate(answer.choices):
                for delta in cut_delta(choice.to_delta(running.call.index, number)):
                    await running.inbox.deliver(running, delta)
        return answer

    async def _call(
        self,
        loaded: _LoadedHook,
        running: InFlightCall,
        stage: Literal["before", "after"],
        expected: type[Made],
        work: Callable[[], Awaitable[Made | None]],
    ) -> Made | None:
        """Return what a hook returns, within its time; `None` where it fails and calls go on.

        Raises:
            ProviderError: it has refused the call or the answer, or has failed.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(min(self._timeout_s, running.deadline - began), 0)):
                return await _await(work, expected)
        except HookRefusalError as refusal:
            sentence = str(refusal)[:MAX_REASON_CHARS] or f"the hook `{loaded.name}` has refused it"
            raise ProviderError(Failure("content_filter", sentence, code=HOOK_REFUSED_CODE)) from refusal
        except (Exception, SystemExit) as error:  # which would end the server
            # Where it took too long, a traceback would show nothing but where it was.
            write = log.warning if isinstance(error, TimeoutError) else log.exception
            write("hook.failed", hook=loaded.name, stage=stage, is_open=loaded.is_open, reason=type(error).__name__)
            if loaded.is_open:
                return None
            sentence = f"the hook `{loaded.name}` failed {stage} the call; the log has the details"
            raise ProviderError(Failure("internal", sentence, code=HOOK_FAILED_CODE)) from error
        finally:
            running.hooks_s = (running.hooks_s or 0.0) + time.monotonic() - began


async def _await(work: Callable[[], Awaitable[Made | None]], expected: type[Made]) -> Made | None:
    try:
        made = await work()
    except asyncio.CancelledError:
        # A CancelledError that nobody requested would end the call without an outcome.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("the hook raised CancelledError although nobody had cancelled the call") from None
    if made is not None and not isinstance(made, expected):
        raise TypeError(f"the hook returned a {type(made).__name__}, not a {expected.__name__} or None")
    if isinstance(made, Completion):
        _check_answer(made)
    return made


def _check_answer(answer: Completion) -> None:
    # Read when the answers of all models are written: there, one that is none would take the others with it.
    is_good = isinstance(answer.choices, tuple) and isinstance(answer.usage, Usage | None)
    if not is_good or not all(isinstance(choice, Choice) and isinstance(choice.message, Answer) for choice in answer.choices):
        raise TypeError("the hook returned a Completion whose choices or usage are of other types")
    texts = (text for choice in answer.choices for text in (choice.message.text, choice.message.reasoning or ""))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("the hook returned a Completion whose texts are of other types")


def load_hooks(environment: Environment, previous: Hooks | None = None) -> Hooks | None:
    """Return the hooks of `FANOUT_HOOKS`, or the previous ones if they are declared the same; `None`: there are none.

    Raises:
        ConfigError: names every module that cannot be loaded.
    """
    if previous is not None and previous.equals(environment):
        return previous
    if not environment.hooks:
        return None
    faults: list[Fault] = []
    hooks = list(_load(environment.hooks, faults))
    if faults:
        raise ConfigError("environment", faults)
    return Hooks(hooks, environment)


def _load(declared: Sequence[str], faults: list[Fault]) -> Iterator[_LoadedHook]:
    for text in declared:
        name, _, mode = text.partition(":")
        try:
            hook = import_by_name(name).create()
        except (Exception, SystemExit) as error:  # whatever the module does when it is imported
            faults.append(Fault("FANOUT_HOOKS", f"`{name}` cannot be loaded ({type(error).__name__}: {error})"))
            continue
        if callable(getattr(hook, "before", None)) and callable(getattr(hook, "after", None)):
            yield _LoadedHook(name, hook, mode == "open")
        else:
            faults.append(Fault("FANOUT_HOOKS", f"what `create()` of `{name}` returns has no `before` and `after`"))
