"""Files of the page: read once, named by a digest of all of them, and sent as such for ever."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

FOLDER = Path(__file__).with_name("assets")
INDEX = "index.html"
CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class Asset:
    """One file, plain and compressed."""

    content_type: str
    body: bytes

    @cached_property
    def compressed(self) -> bytes:
        """The file as gzip; made for the first browser that takes it, not while a server starts."""
        return gzip.compress(self.body, mtime=0)


@dataclass(frozen=True, slots=True)
class Assets:
    """All files of the page."""

    base: str
    """Path under which the files are served. It holds their digest, so that a file at its address never changes."""
    index: Asset
    files: Mapping[str, Asset]
    """Files by their paths below `base`."""


# Cached: tests start many servers.
@lru_cache(maxsize=1)
def load_assets() -> Assets:
    """Read the files from the package."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES)
    contents = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, body in contents.items():
        digest.update(f"{name} {len(body)}\n".encode() + body)
    # One digest for all: modules import each other by relative paths, which need no rewriting within one folder.
    base = f"/assets/{digest.hexdigest()[:16]}"
    # Early, so that the browser fetches all modules at once and does not find them import by import; after the style sheet,
    # with which the first paint comes.
    names = [name for name in contents if name.endswith(".js") and not name.startswith(("views/", "vendor/"))]
    link = '<link rel="modulepreload" fetchpriority="low" href="{}/{}">'
    preloads = "\n".join(link.format(base, name) for name in [*names, "vendor/preact.js"])
    index = contents.pop(INDEX).decode().replace("{base}", base).replace("{preloads}", preloads)
    return Assets(base, _make_asset(INDEX, index.encode()), {name: _make_asset(name, body) for name, body in contents.items()})


def _make_asset(name: str, body: bytes) -> Asset:
    return Asset(CONTENT_TYPES[Path(name).suffix], body)
