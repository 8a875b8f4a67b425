"""The collection of all tables. Each is declared beside the store that uses it; `store/tables.py` gathers them."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
