"""An environment with no more packages than `./scripts/serve` installs."""

from __future__ import annotations

import re
import subprocess
import venv
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.documents import ROOT


def make_served_environment(folder: Path) -> Path:
    """Make an environment of links to the installed packages that `./scripts/serve` would install; return its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    site = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    for name in _list_distributions():
        for place in _list_places(metadata.distribution(name)):
            if not (site / place.name).exists():
                (site / place.name).symlink_to(place)
    return python


def _list_distributions() -> set[str]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    prepared = re.search(r"^prepare ([\w ]+)", (ROOT / "scripts" / "serve").read_text(), re.M)
    assert prepared
    extras = [setup["options.extras_require"][extra] for extra in prepared[1].split()]
    waiting = [
        Requirement(line) for text in (setup["options"]["install_requires"], *extras) for line in text.split("\n") if line
    ]
    found: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found.add(name)
        required = [Requirement(line) for line in metadata.requires(name) or ()]
        waiting += [
            item for item in required if not item.marker or any(_applies(item, extra) for extra in ("", *wanted.extras))
        ]
    return found


def _applies(requirement: Requirement, extra: str) -> bool:
    return bool(requirement.marker and requirement.marker.evaluate({"extra": extra}))


def _list_places(distribution: metadata.Distribution) -> Iterator[Path]:
    """Yield what a distribution has put into `site-packages`."""
    base = Path(str(distribution.locate_file("")))
    names = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
    yield from (base / name for name in names)
