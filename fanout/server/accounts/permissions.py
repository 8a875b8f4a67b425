"""The models that a key may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from fanout.config.catalogue import Catalogue
from fanout.core.schema import Failure

NOT_ALLOWED_CODE = "model_not_allowed"


def make_check(patterns: Sequence[str], catalogue: Catalogue) -> Callable[[str], bool]:
    """Return the function that tells whether a model's name is among names, aliases, sets and patterns."""
    models, globs = set[tuple[str, str]](), list[str]()
    for pattern in patterns:
        for name in catalogue.find_set(pattern) or (pattern,):
            if any(mark in name for mark in "*?["):
                globs.append(name.lower())
            elif model := catalogue.find(name):
                models.add((model.provider, model.id))

    def is_allowed(name: str) -> bool:
        model = catalogue.find(name)
        if model is None:  # it is refused as unknown
            return True
        # As the configuration names it, not as the caller does: an alias must not lead past a pattern.
        spellings = (model.name.lower(), f"{model.provider}/{model.id}".lower())
        return (model.provider, model.id) in models or any(fnmatchcase(one, glob) for one in spellings for glob in globs)

    return is_allowed


def build_refusal(name: str, patterns: Sequence[str]) -> Failure:
    """Return the failure of a call to a model that a key may not call."""
    shown = ", ".join(f"`{pattern}`" for pattern in patterns[:8]) + (", …" if len(patterns) > 8 else "")
    return Failure("not_found", f"this key may not call `{name}`; allowed: {shown}", code=NOT_ALLOWED_CODE, param="model")
