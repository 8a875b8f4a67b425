"""Imports of libraries without those of their parts that nothing here uses."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


def import_without(name: str, *optional: str) -> ModuleType:
    """Import a module that does without others where they are not installed; here it does without those not loaded yet."""
    left_out = [one for one in optional if one not in sys.modules]
    for one in left_out:
        sys.modules[one] = None  # type: ignore[assignment]  # as Python has it for what must not be imported
    try:
        return import_module(name)
    finally:
        for one in left_out:
            del sys.modules[one]


def import_lean_libraries() -> None:
    """Import libraries that would import others because these happen to be installed: 4 MB and 50 ms of CPU."""
    import_without("structlog", "rich", "colorama")  # for tracebacks, but ours are plain text, and for Windows
    import_without("tenacity", "tornado")  # for functions of that


def import_part(package: str, part: str) -> ModuleType:
    """Import a module of a package whose `__init__` has not run: it would import all others, too."""
    if package in sys.modules:
        return import_module(f"{package}.{part}")
    spec = find_spec(package)
    assert spec
    sys.modules[package] = module_from_spec(spec)
    try:
        return import_module(f"{package}.{part}")
    finally:
        del sys.modules[package]  # whoever else imports the package gets all of it
