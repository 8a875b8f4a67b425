"""Mark of tests that measure time."""

from __future__ import annotations

import pytest

timed = pytest.mark.flaky(reruns=3)
"""A test of how long something takes. Of a busy machine the best of four tries counts: what is slow fails them all."""
