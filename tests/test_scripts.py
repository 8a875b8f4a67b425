"""The commands of a fresh clone: the Python they choose, what they install and when, the arguments they pass on.

Each test works on a copy of the scripts. Small programs on its PATH stand for those a machine may lack (python3, apt-get, pip).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import fanout
from tests.support.cli import PATIENCE_S, CommandResult, build_environ, read_address, run_command
from tests.support.documents import ROOT

SCRIPTS = ("serve", "test", "check", "environment")
TOOLS = ("sh", "cat", "cksum", "dirname", "env", "grep", "mkdir", "rm", "touch", "uname")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the parts of the repository that the scripts use, at a path with a space."""
    copy = tmp_path / "a clone"
    (copy / "scripts").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(ROOT / "scripts" / name, copy / "scripts" / name)
    for name in ("setup.cfg", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for PATH with little more than a shell, whose `id` reports a user other than root."""
    folder = tmp_path / "machine"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    write_program(folder / "id", "echo 1000")
    return folder


def write_program(path: Path, script: str) -> None:
    """Write a shell program in place of the one that is there."""
    path.unlink(missing_ok=True)  # it may be a link, whose target must not change
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make_venv(clone: Path, *, pip: str = "") -> None:
    """Create a .venv with the packages of this test's environment; `pip` is the code of its pip."""
    venv = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join([str(ROOT), *packages]))
    (site / "pip.py").write_text(pip)
    (venv / "bin" / "start.py").write_text("from fanout.cli.main import main\nmain()\n")
    write_program(venv / "bin" / "fanout", f'exec "{venv}/bin/python" "{venv}/bin/start.py" "$@"')


def mark_installed(clone: Path, *extras: str) -> None:
    """Leave what an installation leaves."""
    sums = subprocess.run(
        ["cksum", "setup.cfg", "pyproject.toml", "requirements.lock"], cwd=clone, capture_output=True, text=True, check=True
    )
    for extra in ("parquet", "evaluate", *extras):
        (clone / ".venv" / f"installed-{extra}").write_text(f"{clone}\n{sums.stdout}")


async def run_script(clone: Path, name: str, *arguments: str, cwd: Path | None = None, **variables: str) -> CommandResult:
    """Run a script without the `PYTHON` that scripts/test sets for this very test."""
    variables = {"PYTHON": "", **variables}
    return await run_command([str(clone / "scripts" / name), *arguments], given=None, cwd=cwd or clone.parent, **variables)


@pytest.mark.parametrize("name", ["serve", "test"])
async def test_an_old_python_is_refused_in_one_sentence(name: str, clone: Path, machine: Path) -> None:
    write_program(machine / "python3", 'case "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac')

    done = await run_script(clone, name, PATH=str(machine))

    assert (done.code, done.out) == (1, "")
    assert done.err == f"{name}: Python 3.11 or newer is needed; found Python 3.9.2; PYTHON=/path/to/python names another\n"


async def test_a_missing_python_is_reported_in_one_sentence(clone: Path, machine: Path) -> None:
    done = await run_script(clone, "serve", PATH=str(machine))
    named = await run_script(clone, "serve", PATH=str(machine), PYTHON="/absent/python")

    assert (done.code, named.code) == (1, 1)
    assert "found no python3;" in done.err
    assert "found no /absent/python;" in named.err


async def test_a_newer_python_beside_an_old_one_is_found(clone: Path, machine: Path) -> None:
    write_program(machine / "python3", "exit 1")
    write_program(machine / "python3.12", f'case "$*" in *venv*) touch "{machine}/used"; exit 3;; *) exit 0;; esac')

    done = await run_script(clone, "serve", PATH=str(machine))

    assert done.code != 0
    assert (machine / "used").exists()


async def test_venv_is_installed_through_apt_where_allowed(clone: Path, machine: Path) -> None:
    """Root may use apt; the package is that of the Python's version."""
    write_program(machine / "id", "echo 0")
    write_program(
        machine / "apt-get", f'echo "$*" >>"{machine}/apt.log"; case "$1" in install) touch "{machine}/installed" ;; esac'
    )
    write_program(
        machine / "python3",
        f"""case "$*" in
*ensurepip*) test -e "{machine}/installed" ;;
*'-m venv'*) exit 42 ;;
*) exec "{sys.executable}" "$@" ;;
esac""",
    )

    done = await run_script(clone, "serve", PATH=str(machine))

    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    log = (machine / "apt.log").read_text().splitlines()
    assert log[0].startswith("update")
    assert log[1].startswith("install -y ")
    assert log[1].endswith(f" {package}")
    assert f"serve: installing {package} (apt-get)" in done.err
    assert done.code == 42, "the environment is made once the package is there"


@pytest.mark.parametrize("apt", [True, False])
async def test_without_apt_the_packages_to_install_are_named(apt: bool, clone: Path, machine: Path) -> None:
    if apt:
        write_program(machine / "apt-get", "exit 1")
    write_program(machine / "python3", f'case "$*" in *ensurepip*) exit 1 ;; *) exec "{sys.executable}" "$@" ;; esac')

    done = await run_script(clone, "serve", PATH=str(machine))

    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert (done.code, done.out) == (1, "")
    assert done.err == f"serve: python3 cannot make environments; as root: apt-get install {package}\n"


async def test_an_installed_program_starts_at_once_from_any_folder(clone: Path, tmp_path: Path) -> None:
    """Nothing can be installed, because the .venv has no working pip."""
    make_venv(clone, pip="raise SystemExit('pip was called')")
    mark_installed(clone)
    (tmp_path / "fanout").mkdir()  # a stranger's code in the current folder
    (tmp_path / "fanout" / "__init__.py").write_text("raise SystemExit('a stranger')")

    server = await asyncio.create_subprocess_exec(
        clone / "scripts" / "serve",
        cwd=tmp_path,
        env=build_environ(PORT="0", PYTHONPATH="", PYTHON=""),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    await read_address(server)
    server.terminate()
    async with asyncio.timeout(PATIENCE_S):
        await server.communicate()

    assert server.returncode == 0


async def test_host_port_and_arguments_are_passed_on(clone: Path) -> None:
    make_venv(clone)
    mark_installed(clone)
    write_program(clone / ".venv" / "bin" / "fanout", 'printf "%s|" "$@"')

    done = await run_script(clone, "serve", "--config", "a b.json", HOST="::1", PORT="1234")
    plain = await run_script(clone, "serve")

    assert done.out == "serve|--host|::1|--port|1234|--config|a b.json|"
    assert plain.out == "serve|--host|127.0.0.1|--port|8080|"


async def test_the_command_is_available_in_a_shell_that_activates_the_environment(clone: Path) -> None:
    make_venv(clone)
    shell = await run_command(["sh", "-euc", ". .venv/bin/activate && fanout --version"], cwd=clone)

    assert (shell.code, shell.out) == (0, f"fanout, version {fanout.__version__}\n")


PIP = "import pathlib, sys\nwith open({log!r}, 'a') as log: print(*sys.argv[1:], file=log)\n"


async def test_requirements_are_installed_only_after_they_have_changed(clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "pip.log"
    make_venv(clone, pip=PIP.format(log=str(log)))
    write_program(clone / ".venv" / "bin" / "fanout", "exit 0")

    first = await run_script(clone, "serve")
    second = await run_script(clone, "serve")
    (clone / "setup.cfg").write_text((clone / "setup.cfg").read_text() + "\n# changed\n")
    third = await run_script(clone, "serve")

    assert [done.code for done in (first, second, third)] == [0, 0, 0]
    assert [bool(done.err) for done in (first, second, third)] == [True, False, True]
    lines = log.read_text().splitlines()
    assert len(lines) == 4
    assert lines[0].endswith(f"--require-hashes --no-deps -r {clone}/requirements.lock")
    assert lines[1].endswith(f"--editable {clone}[parquet,evaluate]")


async def test_a_failed_installation_is_repeated(clone: Path) -> None:
    make_venv(clone, pip="raise SystemExit(7)")

    for _ in range(2):
        assert (await run_script(clone, "serve")).code == 7


async def test_both_commands_share_one_environment(clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "pip.log"
    make_venv(clone, pip=PIP.format(log=str(log)))
    write_program(clone / ".venv" / "bin" / "fanout", "echo served")
    (clone / "scripts" / "clients").write_text("print('clients')")
    write_program(clone / "scripts" / "check", 'echo "$PYTHON" "$@"')

    tested = await run_script(clone, "test", "-k", "retries")
    served = await run_script(clone, "serve")

    assert tested.out == f"clients\n{clone}/.venv/bin/python -k retries\n"
    assert served.out == "served\n"
    installed = log.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in installed] == ["clone/requirements.lock", "clone[parquet,evaluate,test]"]


@pytest.mark.parametrize(
    ("path", "extras"),
    [
        ("requirements.lock", ("parquet", "evaluate")),
        ("deploy/requirements.lock", ("bedrock", "evaluate", "otel", "parquet", "postgresql", "vertex")),
    ],
)
def test_a_lock_pins_every_requirement_with_hashes_and_names_no_address(path: str, extras: tuple[str, ...]) -> None:
    lock = (ROOT / path).read_text()
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = "\n".join(
        [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    ).split()

    pinned = dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", lock, re.M))
    assert [line for line in required if re.split(r"[>=<\[]", line)[0] not in pinned] == []
    assert lock.count("--hash=sha256:") >= len(pinned)
    assert "://" not in lock


async def test_system_packages_for_the_tests_are_installed_where_allowed(clone: Path, machine: Path) -> None:
    text = (clone / "scripts" / "test").read_text()
    (clone / "scripts" / "test").write_text(text.replace("/usr/lib/", f"{machine}/").replace("/usr/bin/", f"{machine}/"))
    write_program(clone / "scripts" / "check", "echo checked")
    (clone / "scripts" / "clients").write_text("")
    make_venv(clone)
    mark_installed(clone, "test")
    write_program(
        clone / ".venv" / "bin" / "python", f'case "$*" in *xllamacpp*) exit 1 ;; *) exec "{sys.executable}" "$@" ;; esac'
    )

    without = await run_script(clone, "test", PATH=str(machine))
    write_program(machine / "id", "echo 0")
    write_program(machine / "apt-get", f'echo "$*" >>"{machine}/apt.log"')
    write_program(machine / "pg_conftool", f'echo "$*" >>"{machine}/apt.log"')
    with_apt = await run_script(clone, "test", PATH=str(machine))
    for path in (
        machine / "postgresql/17/bin/initdb",
        machine / "arch/faketime/libfaketimeMT.so.1",
        machine / "curl",
        machine / "chromium",
        machine / "zsh",
        machine / "fish",
        machine / "promtool",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_program(path, "")
    log = (machine / "apt.log").read_text().splitlines()
    (machine / "apt.log").unlink()
    again = await run_script(clone, "test", PATH=str(machine))

    assert (without.code, without.out) == (0, "checked\n")
    announced = without.err.index("test: about to install these Debian packages:\ncurl: to send the documents' requests\n")
    assert announced < without.err.index(
        "test: without curl there is no way to send the documents' requests; those tests are skipped\n"
    )
    assert "test: without libgomp1 there is no way to run the llama.cpp server" in without.err
    assert "test: without postgresql there is no way to run the tests on PostgreSQL as a store" in without.err
    assert (with_apt.code, with_apt.out) == (0, "checked\n")
    packages = [line.split()[-1] for line in log if line.startswith("install")]
    assert packages == [
        "curl",
        "libgomp1",
        "libfaketime",
        "chromium",
        "zsh",
        "fish",
        "prometheus",
        "postgresql-common",
        "postgresql",
    ]
    # Set before the server is installed, so that Debian creates and starts none by itself.
    assert log[-3] == "/etc/postgresql-common/createcluster.conf set create_main_cluster off"
    assert again.code == 0
    assert [line.split()[-1] for line in (machine / "apt.log").read_text().splitlines() if line.startswith("install")] == [
        "libgomp1"
    ]


async def test_check_runs_every_check_and_stops_at_the_first_that_fails(clone: Path, machine: Path) -> None:
    write_program(machine / "python", f'echo "$*" >>"{machine}/log"; case "$*" in *"$FAILS"*) exit 1 ;; esac')

    good = await run_script(clone, "check", PYTHON=str(machine / "python"), FAILS="nothing at all")
    calls = (machine / "log").read_text().splitlines()
    bad = await run_script(clone, "check", "-x", PYTHON=str(machine / "python"), FAILS="mypy")

    assert (good.code, bad.code) == (0, 1)
    *checks, suite = calls
    assert checks == ["-m ruff format --check .", "-m ruff check .", "-m codespell_lib", "-m mypy"]
    assert suite.startswith("-m pytest --numprocesses=")
    assert (machine / "log").read_text().splitlines()[len(calls) :] == checks


def test_ci_runs_the_tests_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()

    assert lines == ["#!/bin/sh", 'exec "$(dirname -- "$0")/../scripts/test"']


@pytest.mark.parametrize("path", ["scripts/serve", "scripts/test", "scripts/check", ".ci/run"])
def test_scripts_are_thin_and_can_be_started(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    assert len((ROOT / path).read_text().splitlines()) < 40
