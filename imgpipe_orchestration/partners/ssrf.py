"""Which addresses an untrusted link may reach: the public internet, and what an operator allows.

Addresses are checked, not names: before connecting, those that the name resolves to (the connection is then made to a
permitted address by number), and after connecting, that of the socket's peer. So neither a name that resolves
differently a moment later (DNS rebinding) nor a redirect gets past the check.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import Forbidden, PartnerUnavailable, SettingsError
from imgpipe_orchestration.partners.daemon_threads import in_daemon_thread

if TYPE_CHECKING:
    from imgpipe_orchestration.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# Not public although Python's `is_global` says so: Azure's metadata and DHCP service
# (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16), and networks of IANA's
# special-purpose registries that Python before 3.11.10 lacks (https://github.com/python/cpython/issues/113171).
_INTERNAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "64:ff9b:1::/48",
        "2001::/23",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)

_HOW_TO_ALLOW = "which links from outside may not reach unless an operator lists it in ALLOWED_PRIVATE_HOSTS"


def is_public(address: Address) -> bool:
    """Whether the address, or the IPv4 address embedded in it, belongs to the public internet."""
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    unusual = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not unusual and not any(address in network for network in _INTERNAL)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address is translated or tunnelled to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


@dataclass(frozen=True, slots=True)
class Guard:
    """The rule, applied to names and to sockets; with the private hosts and networks that may be reached."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Guard:
        """The rule with ALLOWED_PRIVATE_HOSTS: a comma list of host, host:port or CIDR; an IPv6 address with a port is
        written [::1]:8000.

        Raises:
            SettingsError: an entry is none of these.
        """
        hosts: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
                continue
            except ValueError:
                pass
            host, colon, port = entry.rpartition(":") if not entry.endswith("]") else (entry, "", "")
            host, port = (host, port) if colon else (entry, "")
            host = host.strip("[]")
            if not host or "/" in host or (colon and not port.isdecimal()):
                raise SettingsError(f"ALLOWED_PRIVATE_HOSTS: {entry!r} is not a host, host:port or CIDR")
            hosts.add((host, int(port) if port else None))
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, host: str, port: int, text: str) -> bool:
        """Whether this address may be reached under this name and port: a public one, or one that is allowed."""
        address = ipaddress.ip_address(text.partition("%")[0])
        names = {host.lower().strip("[]"), str(address)}
        if is_public(address) or any((name, only) in self.hosts for name in names for only in (port, None)):
            return True
        plain = _embedded(address) or address
        return any(plain in network for network in self.networks if network.version == plain.version)

    @classmethod
    def for_customers(cls, settings: Settings) -> Guard | None:
        """The rule for addresses of APIs that a customer's job names; None outside production, where they are local."""
        return cls.parse(settings.allowed_private_hosts) if settings.production else None

    def addresses(self, host: str, port: int, seconds: float | None = None) -> list[str]:
        """The permitted addresses that the name resolves to, in the resolver's order.

        Raises:
            Forbidden: there are none.
            PartnerUnavailable: it does not resolve now, or not within `seconds` and the deadline of the call.
        """
        try:
            found = addresses_of(host, port, seconds)
        except OSError as error:
            raise PartnerUnavailable(f"The host {host} cannot be resolved") from error
        permitted = [address for address in found if self.permits(host, port, address)]
        if not permitted:
            raise Forbidden(f"{host} is a private or reserved address, {_HOW_TO_ALLOW}")
        return permitted

    def check_peer(self, sock: socket.socket, host: str, port: int) -> None:
        """Check what a socket is actually connected to.

        Raises:
            Forbidden: an address that is not permitted; the socket is closed.
        """
        if not self.permits(host, port, str(sock.getpeername()[0])):
            sock.close()
            raise Forbidden(f"{host} led to a private or reserved address, {_HOW_TO_ALLOW}")


def addresses_of(host: str, port: int, seconds: float | None = None) -> list[str]:
    """The addresses of a host, in the resolver's order, within `seconds`.

    A look-up cannot be cancelled, so a thread waits until the system's resolver ends it.

    Raises:
        TimeoutError: the resolver took too long.
        socket.gaierror: there is no such name, or the resolver failed.
    """

    def ask() -> list[str]:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    try:
        return in_daemon_thread(ask, "resolver").result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no address of {host} came in time") from None
    except UnicodeError as error:
        raise socket.gaierror(f"{host} is not a host name") from error
