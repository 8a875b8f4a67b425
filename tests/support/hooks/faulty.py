"""A module whose hook has no `after`."""

from __future__ import annotations


class Half:
    async def before(self, call: object) -> None:
        """Leave every call."""


def create() -> Half:
    return Half()
