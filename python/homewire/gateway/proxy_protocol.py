"""The header of the PROXY protocol, version 2: what a balancer says of its client, first of all.

Only as much is read as belongs to the header, so that TLS or HTTP begin behind it. The libraries that there
are want the stream of a server of their own, and break on a header that ends within its addresses.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD: Final = struct.Struct("!12sBBH")
"""Signature, version and command, family and protocol, length of the rest."""
LONGEST: Final = 4096
"""Bytes of addresses and extensions; balancers send some hundred at most."""
VERSION: Final = 2
LOCAL, PROXY = 0, 1
ADDRESS_BYTES: Final = {1: 4, 2: 16}
"""Length of the client's address, which comes first, by its family: IPv4 and IPv6."""
BOTH_ENDS_BYTES: Final = {1: 12, 2: 36}
LAST_FAMILY, LAST_PROTOCOL = 3, 2


class MalformedHeader(ValueError):
    """What came is no header of version 2."""


async def read_client(connection: socket.socket) -> str | None:
    """Take the header from a connection; the client's address, None if it tells none.

    It tells none of a connection that the balancer made for itself, e.g. to see whether the node is there.
    Raises MalformedHeader, OSError.
    """
    signature, version_command, family_protocol, length = HEAD.unpack(await _exactly(connection, HEAD.size))
    version, command = divmod(version_command, 16)
    family, protocol = divmod(family_protocol, 16)
    if signature != SIGNATURE or version != VERSION or command not in (LOCAL, PROXY):
        raise MalformedHeader
    if length > LONGEST or family > LAST_FAMILY or protocol > LAST_PROTOCOL:
        raise MalformedHeader
    rest = await _exactly(connection, length)
    if command == LOCAL or family not in ADDRESS_BYTES:
        return None
    if length < BOTH_ENDS_BYTES[family]:
        raise MalformedHeader
    address = ip_address(rest[: ADDRESS_BYTES[family]])
    return str(getattr(address, "ipv4_mapped", None) or address)


async def _exactly(connection: socket.socket, size: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < size:
        some = await loop.sock_recv(connection, size - len(received))
        if not some:
            raise MalformedHeader
        received += some
    return received
