"""Certificates of authorities that the operator trusts beside the system's."""

from __future__ import annotations

import ssl
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
