"""Which addresses a webhook may be connected to."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given, strategies

from homewire.webhooks.client import AddressRefused, is_public, public_socket

REFUSED = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "192.0.0.8", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:224.0.0.1"),
    *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001::1"),
    *("fec0::1", "64:ff9b:1::1", "3fff::1", "5f00::1", "4000::1", "2001:20::1"),
    *("100::1", "2606:4700::1%1", "localhost", "", "1.2.3", "0x7f.1", "2130706433"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", REFUSED)
def test_private_address_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_accepted(address: str) -> None:
    assert is_public(address)


@given(strategies.ip_addresses(v=4))
def test_ipv4_is_judged_alike_in_every_guise(address: ipaddress.IPv4Address) -> None:
    plain = is_public(str(address))
    low = f"{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"
    for guise in (f"::ffff:{address}", f"::ffff:{low}", f"64:ff9b::{low}", f"2002:{low}::1"):
        assert is_public(guise) == plain, guise


def test_no_socket_is_made_for_a_refused_address() -> None:
    refused = (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 80, 0, 0))
    with pytest.raises(AddressRefused) as error:
        public_socket(refused)
    assert "::1" not in str(error.value)
    made = public_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("1.1.1.1", 80)))
    made.close()
