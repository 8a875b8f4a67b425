"""The unit of systemd: read by systemd itself, and held against what the server needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fanout.config.environment import Environment
from tests.support.documents import ROOT

UNIT = ROOT / "deploy" / "fanout.service"
MAX_EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts it; below 2 it says OK."""


def analyze(*arguments: str | Path) -> str:
    """Run systemd-analyze and return its words; skip where there is none that can read units offline."""
    program = shutil.which("systemd-analyze") or ""
    if not program:
        reason = "NO SYSTEMD-ANALYZE: the unit was not read; Debian's package `systemd` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def read_values(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_can_read_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "fanout.service"
    unit.write_text(UNIT.read_text().replace("/opt/fanout/bin/fanout", "/bin/true"))
    words = analyze("verify", "--man=no", unit)
    assert "fanout.service" not in words, words


def test_the_unit_gives_the_server_little_beside_its_store() -> None:
    found = re.search(r"Overall exposure level for fanout.service: ([\d.]+)", analyze("security", "--offline=true", UNIT))
    assert found
    assert float(found[1]) < MAX_EXPOSURE


def test_the_unit_sets_variables_that_exist_and_waits_for_a_stopping_server() -> None:
    variables = dict(pair.split("=") for line in read_values("Environment") for pair in line.split())
    fields = Environment.model_fields
    [timeout], [state] = read_values("TimeoutStopSec"), read_values("StateDirectory")

    assert {name.removeprefix("FANOUT_").lower() for name in variables} <= set(fields)
    assert variables["FANOUT_STORE"].startswith(f"/var/lib/{state}/")
    assert int(timeout) > 5 + fields["grace_s"].default + 12 + 5, "draining, grace, a store, and traces that do not answer"
    # /proc/sys, which this would hide, tells one start of a machine from another: docs/operations.md, jobs.
    assert not read_values("ProcSubset")
