"""The package as `pip install` delivers it: wheel and source distribution, built from a copy of the tree and run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest

import fanout
from tests.support.documents import ROOT

PAGE = "fanout/server/page/assets"
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Return what a program prints; it must succeed."""
    # Without coverage: an installed copy is not the code to measure.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, cwd=cwd, env=inherited | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def refuse(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Return what a program that fails prints."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)
    assert done.returncode, done.stdout
    return done.stderr


def pip_install(target: Path, *what: str | Path) -> None:
    """Install into a folder."""
    run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target, *what, cwd=target)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages that pyproject.toml needs to build, installed once for all builds."""
    folder = tmp_path_factory.mktemp("backend")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    try:
        pip_install(folder, *wanted)
    except AssertionError as error:
        reason = f"NO PACKAGE INDEX: cannot fetch {', '.join(wanted)} to build with: {error}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


def build(backend: Path, source: Path, kind: str, into: Path) -> Path:
    return into / run(sys.executable, "-c", BUILD, f"build_{kind}", into, cwd=source, PYTHONPATH=str(backend)).splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with its links, because building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "providers.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "fanout", folder / "fanout", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(backend: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the copy."""
    return build(backend, source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel."""
    folder = tmp_path_factory.mktemp("site")
    pip_install(folder, "--no-deps", wheel)
    return folder


def read_wheel(wheel: Path) -> Mapping[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run_installed(site: Path, *arguments: str) -> str:
    """Run the installed command in a folder of its own; only its dependencies come from this environment."""
    return run(site / "bin" / "fanout", *arguments, cwd=site, PYTHONPATH=str(site), HOME=str(site), XDG_CONFIG_HOME="")


def test_the_wheel_holds_all_modules_the_providers_the_marker_of_types_and_nothing_else(wheel: Path, source: Path) -> None:
    files = {name for name in read_wheel(wheel) if ".dist-info/" not in name}
    modules = {str(path.relative_to(source)) for path in (source / "fanout").rglob("*.py")}
    page = {str(path.relative_to(source)) for path in (source / PAGE).rglob("*") if path.is_file()}
    others = {"fanout/config/providers.json", "fanout/py.typed", "fanout/server/openapi/static/reference.css"}
    others |= {f"fanout/rendering/report_html/assets/report.{kind}" for kind in ("css", "js")}
    assert files == modules | page | others


def test_the_wheel_holds_the_pages_packages_as_they_were_bundled_each_with_its_licence(wheel: Path) -> None:
    files = read_wheel(wheel)
    vendored = f"{PAGE}/vendor"
    sums = dict(line.split()[::-1] for line in files[f"{vendored}/SHA256SUMS"].decode().splitlines())
    assert {name: hashlib.sha256(files[f"{vendored}/{name}"]).hexdigest() for name in sums} == sums
    for name in ("preact", "diff", "marked"):
        assert f"{name}.js" in sums
        licence = files[f"{vendored}/{name}.LICENSE.txt"].decode()
        assert "Copyright" in licence
        assert any(word in licence for word in ("Permission is hereby granted", "Redistribution and use", "Apache License"))
    metadata = [name for name in files if name.endswith(".LICENSE.txt") and ".dist-info/licenses/" in name]
    assert len(metadata) == 3


def test_the_pages_packages_are_locked_with_hashes_and_without_a_registrys_name() -> None:
    locked = json.loads((ROOT / "scripts" / "vendored" / "package-lock.json").read_text())["packages"]
    packages = {name: row for name, row in locked.items() if name}
    assert all(row["integrity"].startswith("sha512-") for row in packages.values())
    assert not any("resolved" in row for row in packages.values())


def test_the_wheels_providers_are_the_file_at_the_top_of_the_tree(wheel: Path) -> None:
    """In the tree it is a link, which must not be packed as one."""
    assert read_wheel(wheel)["fanout/config/providers.json"] == (ROOT / "providers.json").read_bytes()


def test_the_source_distribution_builds_the_same_wheel(backend: Path, source: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(backend, source, "sdist", tmp_path)) as archive:
        assert [member.name for member in archive if not (member.isfile() or member.isdir())] == []
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # absent before Python 3.11.4
        archive.extractall(tmp_path)
    again = build(backend, tmp_path / f"fanout_llm-{fanout.__version__}", "wheel", tmp_path)
    assert again.name == wheel.name
    assert read_wheel(again) == read_wheel(wheel)


def test_the_installed_command_runs_from_its_own_place(installed: Path) -> None:
    assert run_installed(installed, "--version") == f"fanout, version {fanout.__version__}\n"
    assert run_installed(installed, "check").startswith(f"{installed / 'fanout' / 'config' / 'providers.json'}: valid; ")
    short = ("-m", "local/ngram-2", "--max-tokens", "3", "--seed", "1", "--json")
    answer = json.loads(run_installed(installed, "ask", "The return statement", *short))
    assert answer["choices"][0]["finish_reason"] == "length"


def make_environment(folder: Path, *, without: str) -> Path:
    """Return the programs' folder of an environment that borrows this one's packages but one, and has pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    spec = find_spec(without)
    assert spec
    assert spec.origin
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for path in Path(spec.origin).parents[1].iterdir():
        if not path.name.startswith((without, "fanout", "__editable__")) and path.suffix != ".pth":
            (borrowed / path.name).symlink_to(path)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    pip.chmod(0o755)
    return folder / "bin"


def test_the_message_about_a_missing_extra_installs_it(source: Path, tmp_path: Path) -> None:
    """The command in the message is run in a checkout without any of Fanout installed, for PostgreSQL's driver."""
    checkout = shutil.copytree(source, tmp_path / "checkout", symlinks=True)
    programs = make_environment(tmp_path / "environment", without="asyncpg")
    environ = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "FANOUT_STORE": "postgresql://nowhere.invalid/fanout",
    }

    without = refuse(programs / "python", "-m", "fanout", "serve", cwd=checkout, **environ)
    command = re.search("PostgreSQL needs the package asyncpg .*`(pip install .*?)`", without)
    assert command, without
    run("sh", "-c", command[1], cwd=checkout, **environ)
    with_it = refuse(programs / "fanout", "serve", cwd=tmp_path, **environ)

    assert "PostgreSQL needs" not in with_it
    assert "postgresql://nowhere.invalid/fanout` cannot be used: " in with_it, (
        "now it looks for the server, and finds none there"
    )


def test_every_extra_that_is_explained_is_declared_with_its_package() -> None:
    calls = re.findall(
        r'explain_missing_extra\(["\']([\w-]+)["\'], ["\'](\w+)["\']\)',
        "".join(path.read_text() for path in (ROOT / "fanout").rglob("*.py")),
    )
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")

    assert dict(calls).keys() == {
        "asyncpg",
        "botocore",
        "google-auth",
        "jsonschema",
        "opentelemetry-util-genai",
        "pyarrow",
        "zstandard",
    }
    for package, extra in calls:
        assert re.search(rf"^{re.escape(package)}\b", setup["options.extras_require"][extra].strip(), re.M), extra


def test_the_installed_package_declares_its_requirements(wheel: Path) -> None:
    metadata = read_wheel(wheel)[f"fanout_llm-{fanout.__version__}.dist-info/METADATA"].decode()
    fields = metadata.partition("\n\n")[0].splitlines()
    assert "Requires-Python: >=3.11" in fields
    assert "License-File: LICENSE" in fields
    for name in ("aiohttp", "asyncio-throttle", "genai-prices", "pydantic", "structlog", "tenacity"):
        assert any(field.startswith(f"Requires-Dist: {name}") and "extra ==" not in field for field in fields), name
