"""Files that only their owner can read at any moment, written atomically."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from fanout.cli import private_files


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_and_its_folder_are_created_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "keys.env"

    assert private_files.write(path, b"A=1\n") is None
    assert (path.read_bytes(), read_mode(path), read_mode(path.parent)) == (b"A=1\n", 0o600, 0o700)


def test_the_old_file_is_kept_under_a_free_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.env"
    path.write_bytes(b"0")
    path.chmod(0o644)

    assert private_files.write(path, b"1") == tmp_path / "keys.env.bak"
    assert private_files.write(path, b"2") == tmp_path / "keys.env.bak2"
    assert {item.name: (item.read_bytes(), read_mode(item)) for item in tmp_path.iterdir()} == {
        "keys.env": (b"2", 0o600),
        "keys.env.bak": (b"0", 0o600),
        "keys.env.bak2": (b"1", 0o600),
    }


def test_a_failed_check_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "providers.json"
    path.write_bytes(b"old")

    def refuse(draft: Path) -> None:
        assert draft.read_bytes() == b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        private_files.write(path, b"new", refuse)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("providers.json", b"old")]


def test_a_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "real").write_bytes(b"old")
    link = tmp_path / "keys.env"
    link.symlink_to("dotfiles/real")

    private_files.write(link, b"new")

    assert link.is_symlink()
    assert (tmp_path / "dotfiles" / "real").read_bytes() == b"new"


def test_others_cannot_read_the_file_at_any_moment(tmp_path: Path) -> None:
    """Another thread reads every file of the folder while it is written."""
    path, seen, done = tmp_path / "keys.env", set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            for item in tmp_path.iterdir():
                try:
                    seen.add((read_mode(item), item.read_bytes() if item == path else None))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(50):
        private_files.write(path, f"{number}\n".encode() * 1000)
    done.set()
    watcher.join()

    assert {mode for mode, _ in seen} == {0o600}
    assert all(content is None or len(set(content.split())) == 1 for _, content in seen)
