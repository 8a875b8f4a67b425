"""The image and what it is composed with, as far as that can be tried without Docker: what it copies, installs and starts."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fanout.cli.serve import serve as serve_command
from fanout.cli.worker import worker as worker_command
from fanout.config.environment import Environment
from fanout.config.settings import load_settings
from tests.support.documents import ROOT, load_script
from tests.support.server import serve

DEPLOY = ROOT / "deploy"
TEXT = (DEPLOY / "Dockerfile").read_text()


def read_steps() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line]


def list_steps(name: str) -> list[str]:
    return [arguments for instruction, arguments in read_steps() if instruction == name]


def test_everything_that_the_image_copies_is_in_the_project_and_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [source for copy in list_steps("COPY") if "--from" not in copy for source in copy.split()[:-1]]

    assert {"fanout", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "providers.json"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(part, pattern) for part in source.split("/") for pattern in ignored), source
    assert {".git", ".venv*"} <= set(ignored)


def test_an_image_installs_only_what_is_locked_by_its_hash() -> None:
    installs = [shlex.split(step) for run in list_steps("RUN") for step in re.split(r"\s*&&\s*", run) if "pip install" in step]
    locked, own = installs

    assert {"--require-hashes", "--no-deps"} <= set(locked)
    assert locked[-2:] == ["-r", "/src/deploy/requirements.lock"]
    assert {"--no-deps", "--no-build-isolation"} <= set(own), "and nothing more for building Fanout itself"
    assert re.search(r"^setuptools==", (DEPLOY / "requirements.lock").read_text(), re.MULTILINE)


def test_the_lock_of_an_image_holds_every_extra() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    script = (ROOT / "scripts" / "lock").read_text()

    assert set(re.findall(r"--extra (\w+)", script)) == set(setup["options.extras_require"]) - {"test"}


def test_an_image_runs_as_a_user_of_its_own_with_options_that_exist() -> None:
    options = {option for parameter in serve_command.params for option in parameter.opts}
    [arguments] = map(json.loads, list_steps("CMD"))
    [variables] = list_steps("ENV")
    known = {f"FANOUT_{name.upper()}" for name in Environment.model_fields}

    assert list_steps("USER") == ["10001"], "a number, by which Kubernetes can tell that it is not root"
    assert any("--uid 10001" in run and "install -d -o fanout /var/lib/fanout" in run for run in list_steps("RUN"))
    assert list_steps("VOLUME") == ["/var/lib/fanout"], "all that is written, so that the root can be read-only"
    assert arguments[0] == "serve"
    assert {argument for argument in arguments if argument.startswith("--")} <= options
    assert set(re.findall(r"FANOUT_\w+", variables)) <= known


async def test_the_check_of_an_images_health_tells_a_server_that_is_ready_from_none() -> None:
    [check] = list_steps("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"

    def run(port: str) -> int:
        command = [sys.executable, *(argument.replace("8080", port) for argument in arguments)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    async with serve() as server:
        assert await asyncio.to_thread(run, server.url.rpartition(":")[2]) == 0
    assert run("1") != 0


def test_the_composed_services_are_fanout_alone_and_fanout_on_postgresql_with_workers() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    keys = {key for provider in load_settings(environ={}).providers.values() for key in provider.row.api_key_env}

    assert set(services) == {"fanout", "fanout-postgresql", "worker", "postgresql"}
    for name in ("fanout", "fanout-postgresql", "worker"):
        service = services[name]
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
        assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])
        assert {key for key in service["environment"] if key.endswith("_API_KEY")} <= keys
        assert service["ports"] == ([] if name == "worker" else ["127.0.0.1:8080:8080"]), "only this machine reaches it"
    worker, options = services["worker"], {option for parameter in worker_command.params for option in parameter.opts}
    assert worker["command"][0] == "worker"
    assert {word for word in worker["command"] if word.startswith("--")} <= options
    assert worker["command"][-1] == "8080", "where the image's health is looked for"
    assert worker["environment"] == services["fanout-postgresql"]["environment"]
    store = services["fanout-postgresql"]["environment"]["FANOUT_STORE"]
    database = services["postgresql"]["environment"]
    assert store == f"postgresql://{database['POSTGRES_USER']}@postgresql/{database['POSTGRES_DB']}"


def test_the_bill_of_materials_is_that_of_the_lock_and_valid() -> None:
    """Run `scripts/sbom` to renew it."""
    bill = load_script("sbom")
    text = (DEPLOY / "sbom.cdx.json").read_text()
    content = json.loads(text)
    named = {(component["name"], component["version"]) for component in content["components"]}
    locked = set(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", (DEPLOY / "requirements.lock").read_text(), re.MULTILINE))

    assert text == bill.make_bill()
    assert {name for name, _ in locked - named} == bill.BUILD_ONLY
    assert named < locked
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    for direct in ("aiohttp", "botocore", "opentelemetry-util-genai"):
        assert any(f"/{direct}@" in reference for reference in content["dependencies"][0]["dependsOn"])


@pytest.mark.parametrize("path", ["requirements.lock", "deploy/requirements.lock"])
def test_a_lock_is_of_the_versions_that_setup_cfg_allows(path: str) -> None:
    from packaging.requirements import Requirement

    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pinned = dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", (ROOT / path).read_text(), re.MULTILINE))
    for line in filter(None, setup["options"]["install_requires"].split("\n")):
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name]), line
