"""A module of hooks that would end the process that loads it."""

from __future__ import annotations

import sys

sys.exit("nobody may load this")
