"""Imports of libraries without those of their parts that nothing here uses."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


def import_without(name: str, optional: str) -> ModuleType:
    """Import a module that does without another one where that is not installed; here it does without unless it is loaded."""
    if optional in sys.modules:
        return import_module(name)
    sys.modules[optional] = None  # type: ignore[assignment]  # as Python has it for what must not be imported
    try:
        return import_module(name)
    finally:
        del sys.modules[optional]


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
