"""The settings `fanout init` has gathered but not written yet, and the files they become."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from fanout.cli import private_files
from fanout.cli.init.requirements import classify_provider
from fanout.config.catalogue import Catalogue
from fanout.config.env_file import KEYS_FILE_NAME, parse_line, quote, read_env_file
from fanout.config.environment import Environment, find_config_folder
from fanout.config.overlay import read_layer
from fanout.config.settings import ProviderSettings, Settings, load_settings
from fanout.core.errors import ConfigError
from fanout.core.given_text import trim_value
from fanout.core.json_text import JsonObject
from fanout.dispatch.default_models import OWN_SET, find_cheapest_model


@dataclass(slots=True)
class Draft:
    """Values, addresses and models to write."""

    env_path: Path
    config_path: Path
    has_default_env_path: bool
    """Every command reads this file of keys by itself."""
    has_default_config_path: bool
    stored: Mapping[str, str]
    """Variables in the file of keys now."""
    environ: dict[str, str]
    """The process's environment over the stored variables, with the values entered since."""
    providers: Mapping[str, ProviderSettings]
    values: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    """By provider, as are `models`."""
    models: dict[str, str] = field(default_factory=dict)
    """The models that were tried."""
    kept: list[str] = field(default_factory=list)
    """The providers that were set up."""
    chosen: tuple[str, ...] = ()
    """Members of the set `mine`, if the user has chosen them."""

    @classmethod
    def from_files(cls, env_file: Path | None, config_file: Path | None) -> Draft:
        """Start from the existing files.

        Raises:
            ConfigError: a file cannot be used.
        """
        folder = find_config_folder(os.environ)
        if folder is None and not (env_file and config_file):
            raise click.UsageError("there is no home folder: name both files, with --env-file and --config")
        folder = folder or Path()
        env_path = env_file or folder / KEYS_FILE_NAME
        stored = read_env_file(env_path) if env_path.exists() else {}
        # An empty variable of the process does not hide a stored key.
        environ = stored | {name: trim_value(text) for name, text in os.environ.items() if text or name not in stored}
        config_path = config_file or Environment.read(environ).config or folder / "providers.json"
        settings = load_settings(config_path if config_path.exists() else None, environ)
        return cls(
            env_path=env_path,
            config_path=config_path,
            has_default_env_path=env_file is None,
            has_default_config_path=config_file is None,
            stored=stored,
            environ=environ,
            providers=settings.providers,
        )

    def locate(self, variable: str) -> str:
        """Return the place where a variable is set, in words."""
        return "the environment" if os.environ.get(variable, "").strip() else str(self.env_path)

    def with_values(self, values: Mapping[str, str]) -> Draft:
        """Return a draft in which these variables are set, for a trial."""
        return replace(self, environ={**self.environ, **values})

    def keep(self, name: str, values: Mapping[str, str], model: str | None) -> None:
        """Keep a provider's values and the model that was tried."""
        self.environ |= values
        self.kept.append(name)
        address = self.providers[name].row.base_url_env
        for variable, value in values.items():
            if variable == address and classify_provider(self.providers[name]) == "server":
                self.addresses[name] = value
            elif self.stored.get(variable) != value:  # else the file would be replaced without a change
                self.values[variable] = value
        if model:
            self.models[name] = model

    def load_settings(self) -> Settings:
        """Return the settings the other commands would read if this draft were written."""
        return self._load(self.config_path if self.config_path.exists() else None)

    def _load(self, config_path: Path | None) -> Settings:
        return load_settings(config_path, self.environ)

    def list_set_members(self) -> tuple[str, ...]:
        """Return the members of the set `mine`: those the user chose, else the old ones and the models that were tried."""
        if self.chosen:
            return self.chosen
        before = self._read_config().get("sets", {}).get(OWN_SET) or ()
        return tuple(dict.fromkeys((*before, *self.models.values())))

    def list_changes(self) -> tuple[list[str], dict[Path, bytes]]:
        """Return lines that tell the user what would change, and the new content of each file that would."""
        rows = {name: build_row(self.providers[name], address) for name, address in self.addresses.items()}
        sets = {OWN_SET: self.list_set_members()} if self.models or self.chosen else {}
        config, entries = add_entries(self._read_config(), rows, sets)
        text = self.env_path.read_text(encoding="utf-8-sig") if self.env_path.exists() else ""
        text, lines = set_variables(text, self.values)
        summary: list[str] = []
        files: dict[Path, bytes] = {}
        # providers.json comes first and is checked: if it is not valid, nothing is written.
        for path, content, changes in ((self.config_path, format_file(config), entries), (self.env_path, text.encode(), lines)):
            if changes:
                files[path] = content
                summary += [f"{path}{self._describe_file(path)}:", *(f"  {line}" for line in changes)]
        return summary, files

    def write(self, files: Mapping[Path, bytes]) -> Iterator[str]:
        """Write the files, and yield a line about each.

        Raises:
            ConfigError: providers.json would not be valid.
        """
        for path, content in files.items():
            try:
                if path == self.env_path:
                    copy = private_files.write(path, content)
                else:
                    copy = private_files.write(path, content, self._load, mode=_read_mode(path) or 0o644)
            except ConfigError as error:  # it names the temporary file
                raise ConfigError(str(path), [replace(fault, source=str(path)) for fault in error.faults]) from error
            except OSError as error:
                raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error
            yield f"wrote {path}" + (f"; the old file is in {copy}" if copy else "")

    def suggest_commands(self) -> str:
        """Return the commands to run next; the first of them calls what was just set up."""
        options = [] if self.has_default_env_path else ["--env-file", str(self.env_path)]
        if not self.has_default_config_path and self.config_path.exists():
            options += ["--config", str(self.config_path)]
        settings = self.load_settings()
        catalogue = Catalogue(settings)
        known = {
            name: find_cheapest_model(catalogue, settings.providers[name]) for name in self.kept if name not in self.models
        }
        models = [*([OWN_SET] if self.models else []), *filter(None, known.values())]
        commands = [["ask", *options, "Say hello.", *(part for model in models for part in ("-m", model))]] if models else []
        # Of these nothing is known but what the host itself lists.
        if unknown := [name for name, model in known.items() if model is None]:
            commands.append(["check", "--live", *options, *(part for name in unknown for part in ("--provider", name))])
        return "\n".join(["next:", *(f"  fanout {shlex.join(command)}" for command in [*commands, ["serve", *options]])])

    def _describe_file(self, path: Path) -> str:
        mode = _read_mode(path)
        if mode is None:
            return " (a new file that only you can read)" if path == self.env_path else " (a new file)"
        return " (others could read it until now)" if path == self.env_path and mode & 0o077 else ""

    def _read_config(self) -> JsonObject:
        """Return the existing providers.json as it is written, without defaults."""
        if not self.config_path.exists():
            return {}
        read_layer(self.config_path)  # raises with a place in the file, unlike json.loads
        config: JsonObject = json.loads(self.config_path.read_text(encoding="utf-8-sig"))
        return config


def _read_mode(path: Path) -> int | None:
    """Return a file's permissions; `None` if there is no file."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return None


def set_variables(content: str, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the text of an env file with these variables, and its changes in words that show no value."""
    lines, changes = content.splitlines(), []
    for name, value in values.items():
        line = f"{name}={quote(value)}"
        places = [number for number, old in enumerate(lines) if parse_line(old)[0] == name]
        if not places:
            lines.append(line)
            changes.append(f"+ {name}")
        elif parse_line(lines[places[-1]])[1] != value:  # of several lines the last one counts
            lines[places[-1]] = line
            changes.append(f"~ {name}, with a new value")
    return "".join(f"{line}\n" for line in lines), changes


def add_entries(
    file: Mapping[str, object], providers: Mapping[str, JsonObject], sets: Mapping[str, Sequence[str]]
) -> tuple[JsonObject, list[str]]:
    """Return a providers.json with these entries, and its changes in words."""
    edited, changes = dict(file), []
    new_sections: dict[str, dict[str, tuple[object, str]]] = {
        "providers": {name: (row, str(row.get("base_url"))) for name, row in providers.items()},
        "sets": {name: (list(members), ", ".join(members)) for name, members in sets.items()},
    }
    for section, entries in new_sections.items():
        old = dict(edited.get(section) or {})  # type: ignore[call-overload]
        for name, (entry, text) in entries.items():
            if old.get(name) != entry:
                changes.append(f"{'~' if name in old else '+'} {section}.{name}: {text}")
                old[name] = entry
        if old:
            edited[section] = old
    return edited, changes


def build_row(provider: ProviderSettings, address: str) -> JsonObject:
    """Return a provider's row of providers.json with an address."""
    row: JsonObject = provider.row.model_dump(mode="json", exclude_unset=True)
    return {**row, "base_url": address}


def format_file(file: Mapping[str, object]) -> bytes:
    """Return the text of a providers.json."""
    return (json.dumps(file, indent=2, ensure_ascii=False) + "\n").encode()
