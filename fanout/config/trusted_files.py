"""Files that decide where keys and money go: read only if nobody but their user, or root, can have written them."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


class UntrustedFileError(PermissionError):
    """A file that others may have written; the sentence says how to mend that."""


def read_trusted_file(path: Path) -> bytes:
    """Return the content of a file that nobody else can have written.

    Raises:
        UntrustedFileError: others may write to it, may replace it, or own it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        # The open file is checked, not its path, which may lead elsewhere a moment later.
        _check_file(path, file.fileno())
        return file.read()


def explain_unreadable(error: OSError) -> str:
    """Return why a file cannot be read or is not trusted."""
    return str(error) if isinstance(error, UntrustedFileError) else f"cannot be read: {error.strerror}"


def _check_file(path: Path, descriptor: int) -> None:
    if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return  # a container's read-only mount, whose files belong to a user of another machine
    status = os.fstat(descriptor)
    if not _is_trusted_owner(status):
        raise UntrustedFileError(
            f"belongs to another user (uid {status.st_uid}), who may change it: make it yours with `chown`"
        )
    if not stat.S_ISREG(status.st_mode):
        return  # a pipe or terminal
    if mode := _find_open_mode(status):
        raise UntrustedFileError(f"may be written by others (mode {mode:o}): `chmod go-w {path}` makes it yours alone")
    # All folders above it: whoever may rename one of them puts another in its place.
    for distance, folder in enumerate(path.resolve().parents):
        _check_folder(folder, is_systems=distance > 0)


def _check_folder(folder: Path, *, is_systems: bool) -> None:
    status = folder.stat()
    if not _is_trusted_owner(status):
        raise UntrustedFileError(f"is in a folder of another user (uid {status.st_uid}), who may replace it: move it")
    # Farther up, groups are often those of administrators: /usr/local is their `staff` on Debian, and Homebrew's `admin`.
    mode = stat.S_IMODE(status.st_mode) if is_systems and status.st_mode & stat.S_IWOTH else None
    mode = mode if is_systems else _find_open_mode(status)
    # In a sticky folder, such as /tmp, only its owner can replace a file.
    if mode and not mode & stat.S_ISVTX:
        sentence = f"may be replaced by others, to whom its folder is open (mode {mode:o}): `chmod go-w {folder}` closes it"
        raise UntrustedFileError(sentence)


def _is_trusted_owner(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _find_open_mode(status: os.stat_result) -> int | None:
    """Return the mode of what others may write to; `None` if they may not."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private_group(status.st_gid)):
        return mode
    return None


def _is_private_group(number: int) -> bool:
    """Return whether a group is the user's alone, as many systems give each user one; new files may then be mode 664."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except KeyError:
        return False
    return user.pw_gid == number and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
