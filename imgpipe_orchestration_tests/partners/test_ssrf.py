"""Which addresses a link from outside may reach."""

import ipaddress
import socket
from collections.abc import Iterator

import pytest

from imgpipe_orchestration.errors import Forbidden, PartnerUnavailable, SettingsError
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.ssrf import Guard, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.31.255.255", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("100.100.100.200", False),
        ("192.0.0.8", False),
        ("198.18.0.1", False),
        ("203.0.113.9", False),
        ("224.0.0.251", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:a00:1::", False),
        ("2001:db8::1", False),
        ("64:ff9b:1::a00:1", False),
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", False),  # Teredo, to 8.8.8.8
        ("fec0::1", False),
    ],
)
def test_public_and_not(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def permits(text: str, host: str, port: int, address: str) -> bool:
    return Guard.parse(text).permits(host, port, address)


def test_a_host_is_allowed_on_every_port_or_on_one() -> None:
    assert permits("files.internal", "FILES.internal", 443, "10.0.0.1")
    assert permits("files.internal:8080", "files.internal", 8080, "10.0.0.1")
    assert not permits("files.internal:8080", "files.internal", 80, "10.0.0.1")
    assert not permits("files.internal", "other.internal", 80, "10.0.0.1")


def test_an_address_is_allowed_under_any_name() -> None:
    assert permits("127.0.0.1:9000", "localhost", 9000, "127.0.0.1")
    assert not permits("127.0.0.1:9000", "localhost", 9001, "127.0.0.1")
    assert permits("127.0.0.1", "localhost", 1, "127.0.0.1")
    assert permits("[::1]:9000", "[::1]", 9000, "::1")


def test_a_network_is_allowed_also_in_ipv6_clothes() -> None:
    assert permits("10.0.0.0/8, 192.168.1.0/24", "x", 80, "192.168.1.77")
    assert permits("127.0.0.0/8", "x", 80, "::ffff:127.0.0.1")
    assert not permits("10.0.0.0/8", "x", 80, "::1")
    assert not permits("", "x", 80, "10.0.0.1")


@pytest.mark.parametrize("text", ["http://host", "host:port", "10.0.0.0/99", ":80", "a b/c"])
def test_an_entry_that_is_none_of_these_names_the_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="ALLOWED_PRIVATE_HOSTS"):
        Guard.parse(text)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_socket_that_ended_up_at_a_private_address_is_closed(listener: socket.socket) -> None:
    """As after DNS rebinding: the name was public when it was looked up, and is not now."""
    connected = socket.create_connection(listener.getsockname())
    with pytest.raises(Forbidden):
        Guard().check_peer(connected, "rebound.example", 80)
    assert connected.fileno() == -1


def test_a_connection_that_ended_up_at_a_private_address_is_asked_nothing(listener: socket.socket) -> None:
    class Rebound(Guard):
        """The name led elsewhere when it was looked up."""

        def addresses(self, *_: object) -> list[str]:
            return ["127.0.0.1"]

    url = f"http://rebound.example:{listener.getsockname()[1]}"
    with pytest.raises(Forbidden):
        JsonApi("X", url, guard=Rebound(), timeout=2).request("GET", "/")


def test_a_name_that_resolves_to_private_addresses_only_is_refused() -> None:
    with pytest.raises(Forbidden):
        Guard().addresses("localhost", 80)
    assert "127.0.0.1" in Guard.parse("localhost").addresses("localhost", 80)


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    with pytest.raises(PartnerUnavailable, match="cannot be resolved"):
        Guard().addresses("no-such-host.invalid", 80)
