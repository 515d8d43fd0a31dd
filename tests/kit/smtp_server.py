"""An SMTP server as a process of its own: `python smtp_server.py PORT MODE CERT KEY`.

What it took it prints, a JSON object a line. With STARTTLS or TLS it wants `USER` and `PASSWORD`. The local
part of an address says what becomes of its mail: `refused-…` never gets one, `later-…` gets it at the third
try, the first to `slow-…` is never answered.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER = "homewire"
PASSWORD = "a password of the mail server"
MODES = ("none", "starttls", "tls")


class Taker:
    """Decides, prints, forgets."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused-"):
            return f"550 5.1.1 {address} is nobody here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        (address,) = envelope.rcpt_tos
        self.tries[address] += 1
        if address.startswith("later-") and self.tries[address] < 3:
            say({"turnedAway": address})
            return "451 4.3.0 come again"
        content = envelope.content
        assert isinstance(content, bytes)
        assert server.transport is not None
        secure = server.transport.get_extra_info("sslcontext") is not None
        say(
            {
                "from": envelope.mail_from,
                "to": address,
                "content": content.decode("utf-8"),
                "secure": secure,
                "user": bool(session.authenticated),
            }
        )
        if address.startswith("slow-") and self.tries[address] == 1:
            # Longer than any client waits for an answer.
            await asyncio.sleep(3600)
        return "250 taken"


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=right)


async def main(port: int, mode: str, certificate: str, key: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    taker = Taker()

    def connection() -> SMTP:
        return SMTP(
            taker,
            hostname="mail.example.com",
            enable_SMTPUTF8=True,
            tls_context=context if mode == "starttls" else None,
            require_starttls=mode == "starttls",
            auth_required=mode != "none",
            auth_require_tls=mode == "starttls",
            authenticator=authenticate,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", port, ssl=context if mode == "tls" else None)
    say({"ready": port})
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
