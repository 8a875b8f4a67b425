"""The log of questions: the history of comparisons, which a server of the same store shares."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic_core import to_json

from fanout.cli.output import echo
from fanout.core.errors import ConfigError, Fault, StoreError
from fanout.core.ids import create_uuid

if TYPE_CHECKING:  # the database is loaded when something is to be kept: answers are shown before
    from fanout.cli.ask.question import AskQuestion
    from fanout.config.settings import Settings
    from fanout.core.schema import Outcome
    from fanout.store.history.recorder import HistoryMode
    from fanout.store.opening import Store

ASK_PATH = "ask"
"""`path` of comparisons that the command line made; a server's are paths of HTTP."""
OFF, MEMORY = "off", ":memory:"


class AskLog:
    """The place where a command keeps its questions."""

    def __init__(self, settings: Settings, outcomes: Sequence[Outcome]) -> None:
        """Take the settings, and the list that holds the outcomes of the last question when it has ended."""
        self._settings, self._outcomes = settings, outcomes

    async def keep(self, question: AskQuestion, *, created: float, total_s: float, status: int) -> None:
        """Keep the last question with its outcomes; where that fails, one line to standard error says so."""
        if not self._outcomes or find_location(self._settings) is None:
            return
        try:
            async with open_log(self._settings) as store:
                await self._keep(store, question, created, total_s, status)
        except (ConfigError, StoreError) as error:
            echo(f"fanout: the answers are not kept in the log: {error}", err=True)

    async def _keep(self, store: Store, question: AskQuestion, created: float, total_s: float, status: int) -> None:
        from fanout.store.history.queries import ComparisonFilter
        from fanout.store.history.records import ComparisonRecord

        for outcome in self._outcomes:
            # Usage is kept even where the history is off: money was spent either way.
            store.observe(outcome)
        if store.history.mode == OFF:
            return
        is_first = not await store.history.list_comparisons(ComparisonFilter(path=ASK_PATH, limit=1))
        outcomes = sorted(self._outcomes, key=lambda outcome: outcome.call.index)
        comparison = ComparisonRecord(
            number=store.history.create_number(created),
            id=create_uuid(),
            created=created,
            account_id=outcomes[0].call.account_id,
            request_id="",
            path=ASK_PATH,
            stream=True,
            status=status,
            total_s=total_s,
            metadata={},
            body=to_json(question.to_json(), inf_nan_mode="null"),
            outcomes=outcomes,
        )
        store.history.record(comparison)
        if is_first and store.history.mode == "full":
            echo(
                f"questions and answers are kept in {store.name}, for `fanout log` and `-c`;"
                " `--no-log` or FANOUT_HISTORY=off keeps none",
                err=True,
            )


def find_location(settings: Settings) -> str | None:
    """Return the store that outlives the command; `None`: there is none."""
    store = settings.environment.store
    location = store.get_secret_value() if store else OFF
    return None if location in (OFF, MEMORY) else location


@asynccontextmanager
async def open_log(settings: Settings, *, is_reading: bool = False) -> AsyncGenerator[Store]:
    """Open the store. Texts are kept unless `FANOUT_HISTORY` says otherwise: the machine is the user's own.

    Raises:
        ConfigError: there is no store, or it cannot be opened.
    """
    from fanout.observability import logs
    from fanout.store.opening import open_store

    environment = settings.environment
    location = find_location(settings)
    if location is None:
        sentence = "keeps nothing: name a file, or unset the variable to use the one in your data folder"
        raise ConfigError("environment", [Fault("FANOUT_STORE", sentence)])
    # Quiet unless it is set: the store's own lines would stand between the answers.
    level = environment.log_level if "log_level" in environment.model_fields_set else "error"
    logs.configure(level, environment.log_format)
    mode: HistoryMode = environment.history if "history" in environment.model_fields_set else "full"
    async with open_store(
        location,
        history=mode,
        history_days=environment.history_days,
        usage_days=environment.usage_days,
        is_reading=is_reading,
    ) as store:
        assert store, "only `off` has no store"
        yield store
