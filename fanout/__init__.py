"""Fanout: one prompt to many language models at once, the answers side by side.

`ask` and `ask_sync` answer with a `Comparison`, `ask_stream` yields pieces, `run_job` sends many rows; `open_dispatcher`
keeps connections and limits between questions.
`fanout.adapters` has all that a provider adapter of your own imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "AnswerPiece",
    "Choice",
    "Comparison",
    "Completion",
    "CompletionChoice",
    "ConfigError",
    "Cost",
    "Dispatcher",
    "Failure",
    "FanoutError",
    "Fault",
    "Fusion",
    "Hook",
    "HookRefusalError",
    "JobResults",
    "Message",
    "Outcome",
    "Progress",
    "RequestError",
    "RunningJob",
    "ServerError",
    "Settings",
    "StoreError",
    "Timing",
    "Usage",
    "UsageTotals",
    "adapters",
    "ask",
    "ask_stream",
    "ask_sync",
    "load_settings",
    "open_dispatcher",
    "open_job",
    "run_job",
]

if TYPE_CHECKING:
    from fanout.api.jobs import JobResults, RunningJob, open_job, run_job
    from fanout.api.questions import AnswerPiece, ask, ask_stream, ask_sync
    from fanout.config.settings import Settings, load_settings
    from fanout.core.comparison import Comparison, CompletionChoice
    from fanout.core.errors import ConfigError, FanoutError, Fault, HookRefusalError, RequestError, ServerError, StoreError
    from fanout.core.messages import Message
    from fanout.core.schema import Answer, Choice, Completion, Failure, Outcome, Timing
    from fanout.core.usage import Cost, Usage, UsageTotals
    from fanout.dispatch.dispatcher import Dispatcher, open_dispatcher
    from fanout.dispatch.entries import Fusion
    from fanout.dispatch.hooks import Hook
    from fanout.jobs.job import Progress
    from fanout.providers import authoring as adapters

_EXPORTS = {
    "api.jobs": ("JobResults", "RunningJob", "open_job", "run_job"),
    "api.questions": ("AnswerPiece", "ask", "ask_stream", "ask_sync"),
    "config.settings": ("Settings", "load_settings"),
    "core.comparison": ("Comparison", "CompletionChoice"),
    "core.errors": ("ConfigError", "FanoutError", "Fault", "HookRefusalError", "RequestError", "ServerError", "StoreError"),
    "core.messages": ("Message",),
    "core.schema": ("Answer", "Choice", "Completion", "Failure", "Outcome", "Timing"),
    "core.usage": ("Cost", "Usage", "UsageTotals"),
    "dispatch.entries": ("Fusion",),
    "dispatch.hooks": ("Hook",),
    "dispatch.dispatcher": ("Dispatcher", "open_dispatcher"),
    "jobs.job": ("Progress",),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a name at its first use, so that `import fanout` alone costs nothing."""
    if name == "adapters":
        return import_module("fanout.providers.authoring")
    if name not in _HOMES:
        raise AttributeError(f"module `fanout` has no attribute `{name}`")
    return getattr(import_module(f"fanout.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return every name, loaded or not, so that notebooks complete them."""
    return sorted({*globals(), *__all__})
