"""`fanout store`: copies of the store, and the way back from one."""

from __future__ import annotations

from pathlib import Path

import click

from fanout.cli.options import load_settings, with_settings
from fanout.cli.output import echo

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(no_args_is_help=True)
def store() -> None:
    """Copy the store, and put a copy back.

    The store is what FANOUT_STORE names: usage, history, jobs, files. A PostgreSQL database has programs of its own for this,
    pg_dump and pg_restore.
    """


@store.command()
@with_settings
@click.argument("file", metavar="FILE", type=FILE)
def backup(config_file: Path | None, env_file: Path | None, file: Path) -> None:
    """Copy the store to FILE, which must not exist, as it is at one moment, also while servers write."""
    _copy(_find_store(config_file, env_file), file)


@store.command()
@with_settings
@click.argument("file", metavar="FILE", type=FILE)
def restore(config_file: Path | None, env_file: Path | None, file: Path) -> None:
    """Make the copy in FILE the store. Stop servers before, and move the old store away: it is not replaced."""
    _copy(file, _find_store(config_file, env_file))


def _find_store(config_file: Path | None, env_file: Path | None) -> Path:
    from fanout.store.engine.copying import require_file
    from fanout.store.engine.location import MEMORY

    location = load_settings(config_file, env_file).environment.store
    return require_file(location.get_secret_value() if location else MEMORY)


def _copy(source: Path, target: Path) -> None:
    from fanout.store.engine.copying import copy_store

    size = copy_store(source, target)
    echo(f"copied {source} to {target} ({size / 1e6:,.1f} MB)")
