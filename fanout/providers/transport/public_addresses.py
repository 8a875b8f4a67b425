"""Sockets that connect only to public addresses of the internet."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network

NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        # Source: https://www.iana.org/assignments/iana-ipv4-special-registry (2025-10), whole: reachable or not, no image lives
        # there. Not `is_global`, whose list is that of one Python's release.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        "224.0.0.0/4",  # multicast, which has a registry of its own
        "168.63.129.16/32",  # Azure's metadata and agents. Source: https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        # Source: https://www.iana.org/assignments/iana-ipv6-special-registry (2025-10), what of it is in `GLOBAL_UNICAST`:
        # Teredo, benchmarking, ORCHID and drones are in the first, 6to4 is 2002::/16, the others are for documents and AS112.
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All IPv6 addresses that the internet has. Source: https://www.iana.org/assignments/ipv6-address-space"""
EMBEDDING = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0/96"))
"""Networks whose addresses lead to the IPv4 one in their last 32 bits: NAT64, and IPv4 as IPv6's sockets write it.

Source: RFC 6052 §2.1, RFC 4291 §2.5.5.2.
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
        return (is_public(address) and not is_own(address)) or any(address in network for network in self._allowed)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the internet's: of no private, local, reserved or other special network."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in EMBEDDING):
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address.scope_id or address not in GLOBAL_UNICAST:  # a zone means a link of this machine
            return False
    return not any(address in network for network in NOT_PUBLIC)


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address belongs to this machine, whose firewall would not stop a call to its own public address."""
    # Connecting a UDP socket sends nothing; the source address chosen by the kernel equals the destination only for an
    # address of this machine.
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False  # no route to the address
        return ip_address(probe.getsockname()[0]) == address
