"""The place that keeps the jobs of a command: a server, or the store of this configuration."""

from __future__ import annotations

import asyncio
import functools
import shlex
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fanout.cli.options import load_settings, read_server_key, with_settings
from fanout.core.errors import RequestError

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.cli.batch.backend import JobBackend


@dataclass(frozen=True, slots=True)
class JobsLocation:
    """The options that name the place."""

    config_file: Path | None
    env_file: Path | None
    server: str | None

    @property
    def options(self) -> list[str]:
        """Options that name this place to another command."""
        options = {"--server": self.server, "--config": self.config_file, "--env-file": self.env_file}
        return [text for name, value in options.items() if value is not None for text in (name, str(value))]

    def format_command(self, *words: str) -> str:
        """Return a command of `fanout` at this place, as it is typed."""
        return shlex.join(["fanout", *words, *self.options])


def with_location(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config, --env-file and --server, passed to the command as its first argument."""

    @with_settings
    @click.option("--server", help="Address of a running server that keeps the jobs; without it, none is needed.")
    @functools.wraps(command)
    def wrapper(config_file: Path | None, env_file: Path | None, server: str | None, **options: Any) -> None:
        command(JobsLocation(config_file, env_file, server), **options)

    return wrapper


def run_with_jobs(
    work: Callable[[JobBackend], Awaitable[int]], location: JobsLocation, *, in_memory: bool = False, is_reading: bool = False
) -> None:
    """Do a command's work with the jobs at a location, and exit with the code it returns."""

    async def main() -> int:
        async with _open_jobs(location, in_memory=in_memory, is_reading=is_reading) as jobs:
            return await work(jobs)

    try:
        code = asyncio.run(main())
    except RequestError as error:  # its own message has all faults in one line
        raise click.ClickException("\n".join(map(str, error.faults))) from None
    sys.exit(code)


@asynccontextmanager
async def _open_jobs(location: JobsLocation, *, in_memory: bool, is_reading: bool) -> AsyncGenerator[JobBackend]:
    if location.server:
        from fanout.cli.batch.remote_jobs import open_remote_jobs

        async with open_remote_jobs(location.server, read_server_key(location.env_file)) as remote:
            yield remote
        return
    # Imported only here: it loads every adapter and the database, and `--server` needs neither.
    from fanout.cli.batch.local_jobs import open_local_jobs
    from fanout.observability import logs

    settings = load_settings(location.config_file, location.env_file)
    environment = settings.environment
    # Only errors unless the user asks for more: the progress view shows the rest.
    level = environment.log_level if "log_level" in environment.model_fields_set else "error"
    logs.configure(level, environment.log_format)
    async with open_local_jobs(settings, in_memory=in_memory, is_reading=is_reading) as local:
        yield local
