"""Fixtures for the tests against aimock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aimock.mock import Aimock, run_aimock


@pytest.fixture(scope="session")
def aimock() -> Iterator[Aimock]:
    """The running mock, for the whole session."""
    with run_aimock() as running:
        yield running
