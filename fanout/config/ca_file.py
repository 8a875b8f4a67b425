"""Certificates of the authorities that are trusted: the system's, and those that the operator names."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path


def check_ca_file(path: Path) -> Path:
    """Return the path of a file that holds certificates; `ValueError`: it does not."""
    make_ssl_context(path)
    return path


def make_ssl_context(path: Path | None) -> ssl.SSLContext | bool:
    """Return what verifies the hosts of providers: the system's authorities, and those of the file.

    Raises:
        ValueError: the file cannot be read, or holds no certificate.
    """
    if path is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"`{path}` holds no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"`{path}` cannot be read: {error.strerror}") from None
    return context


@cache
def load_system_authorities() -> ssl.SSLContext:
    """Read the system's authorities, once, in some 20 ms: not on the event loop.

    Raises:
        OSError: they cannot be read just now.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))  # as aiohttp's own has it
    path = ssl.get_default_verify_paths().cafile
    if path and not context.cert_store_stats()["x509_ca"]:
        Path(path).open("rb").close()  # without a free file OpenSSL reads none, and says nothing
    return context
