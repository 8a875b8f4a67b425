"""Proxies: the address that requests to a host go through."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from fanout.core.errors import Fault

PROXY = re.compile(r"https?://[^\s/?#]+/?")
NO_PROXY_ADDRESS = "is not the address of an HTTP proxy, like `http://proxy.example:3128`"
LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain"})


class _Exception(NamedTuple):
    """An entry of `NO_PROXY`."""

    host: str
    port: int | None

    def matches(self, host: str, port: int | None) -> bool:
        if self.port not in (None, port):
            return False
        if self.host == "*":
            return True
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(self.host, strict=False)
        except ValueError:
            return host == self.host or host.endswith(f".{self.host}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of one provider. Addresses may hold a password."""

    by_scheme: Mapping[str, SecretStr]
    exceptions: tuple[_Exception, ...] = ()

    def find(self, scheme: str, host: str, port: int | None = None) -> SecretStr | None:
        """Return the proxy for requests to a host; `None`: there is none, as for this machine itself."""
        host = host.strip("[]").lower().rstrip(".")
        proxy = self.by_scheme.get(scheme)
        if proxy is None or is_loopback(host) or any(one.matches(host, port) for one in self.exceptions):
            return None
        return proxy


DIRECT = Proxies({})


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, which no proxy could reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES or host.endswith(".localhost")


def read_proxies(environ: Mapping[str, str], own: str | None) -> tuple[Proxies, list[Fault]]:
    """Return the proxies that a provider's row names, else those of the environment, and the faults of these.

    Args:
        environ: the variables; those in small letters come first, as for curl.
        own: the row's own proxy for every scheme; empty: none.
    """
    # Source: the variables' names and meanings, https://curl.se/libcurl/c/CURLOPT_PROXY.html#environment-variables
    if own is not None:
        return Proxies({"http": SecretStr(own), "https": SecretStr(own)} if own else {}), []
    found, faults = {}, []
    for scheme in ("http", "https"):
        names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
        variable = next((name for name in names if environ.get(name, "").strip()), None)
        if variable is None:
            continue
        address = environ[variable].strip()
        address = address if "://" in address else f"http://{address}"
        if PROXY.fullmatch(address):
            found[scheme] = SecretStr(address)
        else:
            faults.append(Fault(variable, NO_PROXY_ADDRESS, source="environment"))
    without = environ.get("no_proxy", "").strip() or environ.get("NO_PROXY", "")
    exceptions = tuple(_parse_exception(word) for word in re.split(r"[\s,]+", without.lower()) if word)
    return Proxies(found, exceptions), faults


def _parse_exception(word: str) -> _Exception:
    host, colon, port = word.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return _Exception(host.removeprefix("*").lstrip(".") or "*", int(port))
    return _Exception("*" if word == "*" else word.removeprefix("*").lstrip(".").strip("[]"), None)


def describe_proxy(proxy: SecretStr) -> str:
    """Return the address of a proxy without user and password."""
    parts = urlsplit(proxy.get_secret_value())
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
