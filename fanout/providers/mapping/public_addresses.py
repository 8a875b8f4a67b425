"""Sockets that lead to addresses of the public internet alone."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network

EMBEDDING: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
    (IPv6Network("::ffff:0:0/96"), 0),
)
"""Networks whose addresses lead to an IPv4 one (NAT64, 6to4, mapped), and how far above the last bit that one stands.

Source: RFC 6052 §2.1, RFC 3056 §2, RFC 4291 §2.5.5.2.
"""


class PublicSocketFactory:
    """Maker of the sockets of a connector: the one place that every connection passes.

    Args:
        allowed: networks that may be reached although they are not public. For tests.
    """

    def __init__(self, allowed: Collection[Network] = ()) -> None:
        self.has_refused = False
        """An address was turned away."""
        self._allowed = allowed

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for one result of `getaddrinfo`.

        Raises:
            PermissionError: its address is not public.
        """
        # The address that is connected to, not the name: DNS may answer otherwise the next time.
        family, kind, protocol, _, address = info
        if not self._may_reach(address[0]):
            self.has_refused = True
            raise PermissionError("not a public address")
        return socket.socket(family, kind, protocol)

    def _may_reach(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return is_public(address) or any(address in network for network in self._allowed)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the internet's: not private, loopback, link-local, multicast or reserved.

    Source: https://www.iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry
    """
    if isinstance(address, IPv6Address):
        if address.scope_id or address.is_site_local:  # a zone means a link of this machine
            return False
        for network, shift in EMBEDDING:
            if address in network:
                return is_public(IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)
