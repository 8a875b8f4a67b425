"""The system's authorities: not read when a server imports aiohttp, and there for whoever needs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

COUNT = """
import os, resource, ssl, sys
from fanout.core.authorities import import_by_name, lacks_authorities, load_authorities, without_authorities
with without_authorities():
    import aiohttp.connector
def count():
    contexts = aiohttp.connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()
    print(*(context.cert_store_stats()["x509_ca"] for context in contexts), lacks_authorities())
"""
AUTHORITIES = f"""{COUNT}
count()
import_by_name("fanout.core.errors")
count()
import_by_name("json.tool")
count()
"""
WITHOUT_FILES = f"""{COUNT}
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    load_authorities()
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
load_authorities()
count()
"""


def run(script: str, ca_file: Path) -> list[str]:
    environment = os.environ | {"SSL_CERT_FILE": str(ca_file)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def test_aiohttp_is_imported_without_them_and_a_module_of_the_operators_own_finds_them(ca_file: Path) -> None:
    assert run(AUTHORITIES, ca_file) == ["0 1 True", "0 1 True", "1 1 False"]


def test_they_are_read_again_if_no_file_could_be_opened(ca_file: Path) -> None:
    assert run(WITHOUT_FILES, ca_file) == ["Too many open files", "1 1 False"]


def test_a_file_that_is_not_there_or_holds_none_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("absent.pem", "empty.pem"):
        assert run(f"{COUNT}\nload_authorities()\ncount()", tmp_path / name) == ["0 0 False"]
