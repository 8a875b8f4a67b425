"""Cheap frozen dataclasses for the values of which a dozen are made for every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as value_type
else:

    def value_type(*, frozen: bool, slots: bool):
        """Return a dataclass decorator that leaves it to mypy to see that the values are frozen.

        A dataclass that is frozen at run time costs three times as much to make: 6 against 2 µs a call in all
        (2026-11-20, timeit).
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["value_type"]
