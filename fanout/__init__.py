"""Fanout: one prompt to many language models at once, the answers side by side."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ask", "ask_sync", "load_settings", "open_dispatcher"]

if TYPE_CHECKING:
    from fanout.api import ask, ask_sync
    from fanout.config.settings import load_settings
    from fanout.dispatch.dispatcher import open_dispatcher

_HOMES = {"ask": "api", "ask_sync": "api", "load_settings": "config.settings", "open_dispatcher": "dispatch.dispatcher"}


def __getattr__(name: str) -> Any:
    """Loads a name at its first use, so that `import fanout` alone costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module `fanout` has no attribute `{name}`")
    return getattr(import_module(f"fanout.{_HOMES[name]}"), name)
