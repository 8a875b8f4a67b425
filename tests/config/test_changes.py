"""Changes between two configurations, and those that a running server cannot take over."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.config.changes import FIXED, Changes
from fanout.config.environment import Environment
from fanout.core.errors import ConfigError
from tests.support.builders.settings import load_own_settings

ROW = {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "LAB_KEY"}
ROWS = {"extends": False, "providers": {"lab": ROW, "other": ROW | {"api_key_env": "OTHER_KEY"}}, "sets": {}}


def test_a_provider_has_changed_if_its_key_has(tmp_path: Path) -> None:
    old = load_own_settings(tmp_path, ROWS, LAB_KEY="sk-old", OTHER_KEY="sk-other")
    new = load_own_settings(tmp_path, ROWS, LAB_KEY="sk-new", OTHER_KEY="sk-other", FANOUT_TIMEOUT_S="5")
    changes = Changes.between(old, new)
    assert changes == Changes(("FANOUT_TIMEOUT_S",), ("lab",), (), ())
    changes.check()
    assert Changes.between(old, old) == Changes((), (), (), ())


def test_every_variable_that_needs_a_new_process_is_named_and_no_value(tmp_path: Path) -> None:
    old = load_own_settings(tmp_path, ROWS)
    new = load_own_settings(tmp_path, ROWS, FANOUT_STORE="postgresql://u:secret@h/d", FANOUT_MAX_WAITING="7")
    with pytest.raises(ConfigError) as caught:
        Changes.between(old, new).check()
    assert sorted(fault.path for fault in caught.value.faults) == ["FANOUT_MAX_WAITING", "FANOUT_STORE"]
    assert "secret" not in str(caught.value)


def test_the_fixed_variables_exist() -> None:
    assert set(FIXED) <= set(Environment.model_fields)
