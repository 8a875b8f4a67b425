"""What `fanout init` has gathered and not yet written: values, addresses, models; and the files they become."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from fanout.cli.init import private_files
from fanout.cli.init.requirements import group, row_with, with_rows, with_variables, written
from fanout.config.environment import KEYS, Environment, users_folder, variables_in
from fanout.config.overlay import read
from fanout.config.settings import ProviderSettings, Settings, load
from fanout.core.errors import ConfigError
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.probe import probe
from fanout.probe.diagnosis import Finding
from fanout.probe.probe import Trial

SET = "mine"
"""The set that `init` makes of the models that answered."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Files to be written, and what is different in them."""

    told: tuple[str, ...]
    keys: Path
    """Which of them holds keys."""
    files: Mapping[Path, bytes]
    check: Callable[[Path], object]
    """Whether a providers.json can be used, before it takes its place."""

    def write(self) -> list[str]:
        """Writes them, providers.json first: where it cannot be used, nothing is written. What was done, a line a file.

        Raises:
            ConfigError: providers.json would not be valid.
        """
        done = []
        for path, content in self.files.items():
            try:
                if path == self.keys:
                    copy = private_files.write(path, content)
                else:
                    copy = private_files.write(path, content, self.check, mode=_mode(path) or 0o644)
            except ConfigError as error:
                raise ConfigError(str(path), [replace(fault, source=str(path)) for fault in error.faults]) from error
            except OSError as error:
                raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error
            done.append(f"wrote {path}" + (f"; what it was before is in {copy}" if copy else ""))
        return done


@dataclass(slots=True)
class Draft:
    """Values, addresses and models, by provider and variable."""

    env_path: Path
    config_path: Path
    env_is_own: bool
    """The file of keys is the one that every command reads by itself."""
    config_is_own: bool
    stored: Mapping[str, str]
    """What stands in the file of keys now."""
    environ: dict[str, str]
    """The environment over what is stored, with what was given since."""
    providers: Mapping[str, ProviderSettings]
    values: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    """The model that was tried, by provider."""
    chosen: tuple[str, ...] = ()
    """What `mine` shall stand for, where the user was asked."""

    @classmethod
    def begin(cls, env_file: Path | None, config_file: Path | None) -> Draft:
        """With what there is already.

        Raises:
            ConfigError: a file that is there cannot be used.
        """
        folder = users_folder(os.environ)
        if folder is None and not (env_file and config_file):
            raise click.UsageError("there is no home to write to: name both files, with --env-file and --config")
        own = folder or Path()
        env_path = env_file or own / KEYS
        stored = variables_in(env_path) if env_path.exists() else {}
        environ = stored | {name: value for name, value in os.environ.items() if value or name not in stored}
        named = config_file or Environment.read(environ).config
        config_path = named or own / "providers.json"
        settings = load(config_path if config_path.exists() else None, environ)
        return cls(
            env_path=env_path,
            config_path=config_path,
            env_is_own=env_file is None,
            config_is_own=config_file is None,
            stored=stored,
            environ=environ,
            providers=settings.providers,
        )

    def where(self, variable: str) -> str:
        """Where a variable is set, in words."""
        return "the environment" if os.environ.get(variable, "").strip() else str(self.env_path)

    def with_values(self, name: str, values: Mapping[str, str]) -> Draft:
        """A draft in which these hold, for a trial."""
        return replace(self, environ={**self.environ, **values})

    def keep(self, name: str, values: Mapping[str, str], model: str | None) -> None:
        """Takes a provider in."""
        self.environ |= values
        address = self.providers[name].row.base_url_env
        for variable, value in values.items():
            if variable == address and group(self.providers[name]) == "server":
                self.addresses[name] = value
            elif self.stored.get(variable) != value:
                self.values[variable] = value
        if model:
            self.models[name] = model

    def settings(self) -> Settings:
        """What the other commands would read after this."""
        return load(self.config_path if self.config_path.exists() else None, self.environ)

    async def tried(self, name: str, model: str | None, timeout_s: float) -> Finding:
        """What one provider shows."""
        async with open_dispatcher(self.settings()) as dispatcher:
            (finding,) = await probe.tried(dispatcher, [Trial(name, model, asked_for=True)], timeout_s)
        return finding

    def mine(self) -> tuple[str, ...]:
        """What `mine` stands for: what it did, and the models that were tried."""
        if self.chosen:
            return self.chosen
        before = self._file().get("sets", {}).get(SET) or ()
        return tuple(dict.fromkeys((*before, *self.models.values())))

    def changes(self) -> Changes:
        """What would be written."""
        rows = {name: row_with(self.providers[name], address) for name, address in self.addresses.items()}
        made, entries = with_rows(self._file(), rows, {SET: self.mine()} if self.models else {})
        text = self.env_path.read_text(encoding="utf-8-sig") if self.env_path.exists() else ""
        text, lines = with_variables(text, self.values)
        told: list[str] = []
        files: dict[Path, bytes] = {}
        for path, content, changed in ((self.config_path, written(made), entries), (self.env_path, text.encode(), lines)):
            if changed:
                files[path] = content
                told += [f"{path}{self._state(path)}:", *(f"  {line}" for line in changed)]
        return Changes(tuple(told), self.env_path, files, lambda path: load(path, self.environ))

    def farewell(self) -> str:
        """What to run next."""
        options = "" if self.env_is_own else f" --env-file {shlex.quote(str(self.env_path))}"
        if not self.config_is_own and self.config_path.exists():
            options += f" --config {shlex.quote(str(self.config_path))}"
        model = f" -m {SET}" if self.models else ""
        return f'next:\n  fanout ask{options} "Say hello."{model}\n  fanout serve{options}'

    def _state(self, path: Path) -> str:
        mode = _mode(path)
        if mode is None:
            return " (a new file, for you alone)" if path == self.env_path else " (a new file)"
        return " (open to others until now)" if path == self.env_path and mode & 0o077 else ""

    def _file(self) -> dict[str, Any]:
        """The providers.json that is there, as it is written."""
        if not self.config_path.exists():
            return {}
        read(self.config_path)  # says what is wrong with it
        file: dict[str, Any] = json.loads(self.config_path.read_text(encoding="utf-8-sig"))
        return file


def _mode(path: Path) -> int | None:
    """Who may read and write it; `None` where it is not there."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None
