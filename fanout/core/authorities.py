"""The authorities that the system trusts: a server reads them into aiohttp's contexts when they are needed, not before."""

from __future__ import annotations

import errno
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

METHOD = "set_default_verify_paths"
_empty: list[ssl.SSLContext] = []
"""The contexts that are made without authorities."""
_loading = threading.Lock()


@contextmanager
def without_authorities() -> Iterator[None]:
    """Have aiohttp imported in this block without the system's authorities, which it reads twice: 40 ms and 2 MB (2026-11-28).

    Its contexts trust nobody until `load_authorities`.
    """
    own = vars(ssl.SSLContext).get(METHOD)

    def leave_empty(context: ssl.SSLContext) -> None:
        if context.verify_mode != ssl.CERT_NONE:  # else they are of no use
            _empty.append(context)

    setattr(ssl.SSLContext, METHOD, leave_empty)
    try:
        yield
    finally:
        if own is None:
            delattr(ssl.SSLContext, METHOD)  # that of its base is found again
        else:
            setattr(ssl.SSLContext, METHOD, own)


def lacks_authorities() -> bool:
    """Return whether `load_authorities` has something to do."""
    return bool(_empty)


def load_authorities() -> None:
    """Read the authorities into the contexts that were made without, in some 20 ms: run it in a thread.

    Raises:
        OSError: no file can be opened just now.
    """
    with _loading:
        while _empty:
            _load_into(_empty[-1])
            _empty.pop()


def _load_into(context: ssl.SSLContext) -> None:
    context.set_default_verify_paths()
    path = ssl.get_default_verify_paths().cafile
    if path is None or context.cert_store_stats()["x509_ca"]:
        return
    try:
        context.load_verify_locations(cafile=path)  # as was done above, where OpenSSL says nothing if it cannot
    except ssl.SSLError:  # it holds none
        return
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise


def import_by_name(name: str) -> ModuleType:
    """Import a module; before one of the operator's own, which may use aiohttp by itself, read the authorities.

    Raises:
        ImportError: there is no such module.
        OSError: see `load_authorities`.
    """
    if not name.startswith("fanout."):
        load_authorities()
    return import_module(name)
