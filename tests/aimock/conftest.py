"""What every test here may use."""

from tests.aimock.mock import aimock

__all__ = ["aimock"]
