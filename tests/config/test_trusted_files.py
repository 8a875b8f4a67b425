"""Files of configuration and keys that others may have written: refused with the command that mends it, wherever named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fanout.config.env_file import add_env_file
from fanout.config.environment import Environment
from fanout.config.settings import load_settings
from fanout.config.trusted_files import UntrustedFileError, read_trusted_file
from fanout.core.errors import ConfigError

STRANGER = 65_534
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "providers.json": ("{}", lambda path: load_settings(path, {})),
    "own/fanout/providers.json": ("{}", lambda path: load_settings(None, {"XDG_CONFIG_HOME": str(path.parents[1])})),
    "FANOUT_CONFIG": ("{}", lambda path: load_settings(None, {"FANOUT_CONFIG": str(path)})),
    "keys": ("a-key-of-enough-characters", lambda path: Environment.read({"FANOUT_API_KEYS_FILE": str(path)})),
    ".env": ("A=1", lambda path: add_env_file(path, {})),
}
"""Every way in which a file is named: what it holds, and its reader."""

every_reader = pytest.mark.parametrize("name", READERS)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def write_file(folder: Path, name: str, mode: int = 0o644) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(READERS[name][0])
    path.chmod(mode)
    return path


def read_error(name: str, path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        READERS[name][1](path)
    return str(caught.value)


@every_reader
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o444])
def test_a_file_that_only_its_user_can_write_is_read(name: str, mode: int, tmp_path: Path) -> None:
    READERS[name][1](write_file(tmp_path, name, mode))


@every_reader
@pytest.mark.parametrize("mode", [0o666, 0o602, 0o646])
def test_a_file_that_others_may_write_is_refused_and_the_command_in_the_error_mends_it(
    name: str, mode: int, tmp_path: Path
) -> None:
    path = write_file(tmp_path, name, mode)
    error = read_error(name, path)
    assert f"may be written by others (mode {mode:o})" in error
    command = re.search(r"`(chmod [^`]*)`", error)
    assert command
    subprocess.run(command[1].split(" "), check=True)
    READERS[name][1](path)


@every_reader
def test_a_file_in_a_folder_that_others_may_write_is_refused_unless_the_folder_is_sticky(name: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, name)
    path.parent.chmod(0o777)
    error = read_error(name, path)
    assert "may be replaced by others" in error
    assert f"`chmod go-w {path.parent.resolve()}`" in error
    path.parent.chmod(0o1777)  # as /tmp
    READERS[name][1](path)


@every_reader
def test_a_file_below_a_folder_that_others_may_write_is_refused(name: str, tmp_path: Path) -> None:
    """They can rename the folder in between, and put their own in its place."""
    path = write_file(tmp_path / "open" / "own", name)
    path.parent.parent.chmod(0o777)
    assert f"`chmod go-w {path.parent.parent.resolve()}`" in read_error(name, path)
    path.parent.parent.chmod(0o1777)
    READERS[name][1](path)


@as_root
@every_reader
def test_a_strangers_file_or_folder_is_refused(name: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, name)
    os.chown(path, STRANGER, -1)
    assert f"belongs to another user (uid {STRANGER})" in read_error(name, path)
    os.chown(path, 0, -1)
    os.chown(path.parent, STRANGER, -1)
    assert f"is in a folder of another user (uid {STRANGER})" in read_error(name, path)


@as_root
def test_a_file_that_its_group_may_write_is_refused_unless_the_group_is_its_users_own(tmp_path: Path) -> None:
    """Many systems give each user such a group, and new files the mode 664."""
    path = write_file(tmp_path, "providers.json", 0o664)
    os.chown(path, 0, 0)
    read_trusted_file(path)
    os.chown(path, 0, STRANGER)
    with pytest.raises(UntrustedFileError, match=r"mode 664"):
        read_trusted_file(path)


@as_root
def test_a_link_leads_to_the_folder_that_counts(tmp_path: Path) -> None:
    """A Kubernetes volume is made of links; what is checked is where they end."""
    path = write_file(tmp_path / "data", "providers.json")
    link = tmp_path / "providers.json"
    link.symlink_to(path)
    READERS["providers.json"][1](link)
    path.parent.chmod(0o777)
    assert "may be replaced by others" in read_error("providers.json", link)


@as_root
def test_a_file_on_a_read_only_mount_may_belong_to_anyone(tmp_path: Path) -> None:
    """As a container sees the files of its host."""
    path = write_file(tmp_path, "providers.json", 0o666)
    os.chown(path, STRANGER, STRANGER)
    target = tmp_path / "mounted"
    target.mkdir()
    python = "import pathlib, sys; from fanout.config.trusted_files import *; read_trusted_file(pathlib.Path(sys.argv[1]))"
    script = f'mount --bind {tmp_path} {target} && mount -o remount,ro,bind {target} && "$0" -c "$1" {target}/providers.json'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, python],
        capture_output=True,
        text=True,
        check=False,
    )
    if "permission denied" in run.stderr.lower() and "mount" in run.stderr:
        pytest.skip("this machine forbids mounts")
    assert run.returncode == 0, run.stderr


def test_a_pipe_is_read_as_a_shell_hands_it_over(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"A=1\n")
    os.close(writing)
    try:
        assert add_env_file(Path(f"/dev/fd/{reading}"), {}) == {"A": "1"}
    finally:
        os.close(reading)
