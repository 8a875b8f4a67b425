"""The units of systemd: read by systemd itself, and held against what server and worker need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fanout.config.environment import Environment
from tests.support.documents import ROOT

UNIT, WORKER_UNIT = ROOT / "deploy" / "fanout.service", ROOT / "deploy" / "fanout-worker@.service"
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


def read_values(name: str, unit: Path = UNIT) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("source", [UNIT, WORKER_UNIT], ids=lambda path: str(path.name))
def test_systemd_can_read_a_unit_that_gives_little_beside_the_store(source: Path, tmp_path: Path) -> None:
    unit = tmp_path / source.name.replace("@", "@1")
    unit.write_text(source.read_text().replace("/opt/fanout/bin/fanout", "/bin/true"))
    words = analyze("verify", "--man=no", unit)
    assert unit.name not in words, words

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", analyze("security", "--offline=true", unit))
    assert found
    assert float(found[1]) < MAX_EXPOSURE


def test_the_units_of_server_and_worker_differ_in_what_they_run_and_keep_alone() -> None:
    apart = ("Description", "ExecStart", "EnvironmentFile", "Environment", "StateDirectory", "StateDirectoryMode")

    def read(unit: Path) -> list[str]:
        lines = unit.read_text().splitlines()
        return [line for line in lines if not line.startswith("#") and line.partition("=")[0] not in apart]

    assert read(UNIT) == read(WORKER_UNIT)
    assert read_values("ExecStart", WORKER_UNIT) == ["/opt/fanout/bin/fanout worker"]


def test_the_unit_sets_variables_that_exist_and_waits_for_a_stopping_server() -> None:
    variables = dict(pair.split("=") for line in read_values("Environment") for pair in line.split())
    fields = Environment.model_fields
    [timeout], [state] = read_values("TimeoutStopSec"), read_values("StateDirectory")

    assert {name.removeprefix("FANOUT_").lower() for name in variables} <= set(fields)
    assert variables["FANOUT_STORE"].startswith(f"/var/lib/{state}/")
    assert int(timeout) > 5 + fields["grace_s"].default + 12 + 5, "draining, grace, a store, and traces that do not answer"
    # /proc/sys, which this would hide, tells one start of a machine from another: docs/operations.md, jobs.
    assert not read_values("ProcSubset")
