"""Statuses of the document that the access table does not reach: where they are, or why nothing does."""

from __future__ import annotations

import re
from typing import Final

from homewire.rest.shapes import MODE, ROCKET_CHAT, SESSIONS

_RATES: Final = "test_bus_ingest.py (the limits on events per second)"
_VALUES: Final = "test_limits_nodes.py (changes of values)"
_HOLDERS: Final = "test_limits_nodes.py (the limits on connections)"
_ATTEMPTS: Final = "test_api_attempts.py (the limits on attempts)"
_NDATA: Final = "test_api_ndata.py"
_SESSION: Final = "test_api_user_session.py"
_ROCKET_CHAT: Final = "test_rocket_chat.py"
_NO_KEY: Final = "no key is looked at"

ELSEWHERE: Final[dict[tuple[str, int], str]] = {
    ("createUser", 429): _ATTEMPTS,
    ("addHomeMember", 429): "test_consent.py",
    ("changeAddress", 204): "test_address_changes.py",
    ("changeAddress", 429): "test_address_changes.py",
    ("startAddressChange", 429): "test_address_changes.py",
    ("updateUser", 429): "test_password_changes.py",
    ("authenticateUser", 429): _ATTEMPTS,
    ("startSMS", 429): _ATTEMPTS,
    ("verifyEmail", 429): _ATTEMPTS,
    ("startEmailVerification", 429): _ATTEMPTS,
    ("resetPassword", 429): _ATTEMPTS,
    ("startPasswordReset", 429): _ATTEMPTS,
    ("sendHomeEvent", 429): _RATES,
    ("sendDeviceEvent", 429): _RATES,
    ("sendEvents", 429): _RATES,
    ("sendCommand", 429): _RATES,
    ("putHomeKeyValuePair", 429): _VALUES,
    ("putDeviceKeyValuePair", 429): _VALUES,
    ("deleteHomeKeyValuePair", 429): _VALUES,
    ("deleteDeviceKeyValuePair", 429): _VALUES,
    ("rocketChatLogin", 401): _ROCKET_CHAT,
    ("rocketChatLogin", 429): _ROCKET_CHAT,
    ("rocketChatLogout", 409): _ROCKET_CHAT,
    ("endRocketChatSession", 409): _ROCKET_CHAT,
    ("listenToEvents", 429): _HOLDERS,
    ("getUserSession", 404): _SESSION,
    ("terminateUserSession", 404): _SESSION,
    ("terminateUserSession", 409): _SESSION,
    ("receiveCommands", 429): _HOLDERS,
    ("getSession", 400): _NDATA,
    ("deleteSession", 400): _NDATA,
    ("deleteSession", 409): _NDATA,
}
"""For an operation and status, the test that reaches it."""

ELSEWHERE.update(
    {
        (name + prefix, status): "test_sessions_controller.py"
        for prefix in ("", "AtApi")
        for name, statuses in {
            "logIn": (401, 429),
            "logInWithToken": (429,),
            "logInNode": (429,),
            "logOut": (403, 409),
            "getSessionUserDetails": (404,),
        }.items()
        for status in statuses
    }
)

IMPOSSIBLE: Final[dict[tuple[str, int], str]] = {
    ("startSMS", 401): _NO_KEY,
    ("verifyEmail", 401): _NO_KEY,
    ("startEmailVerification", 401): _NO_KEY,
    ("resetPassword", 401): _NO_KEY,
    ("startPasswordReset", 401): _NO_KEY,
}
"""Why a status of the spec's table is never answered."""


ERROR: Final = {
    MODE: re.compile(r'\{"reason":"[A-Z_]+","data":\{'),
    SESSIONS: re.compile(r'\{"reason":"[A-Z_]+","data":\{'),
    ROCKET_CHAT: re.compile(r'\{("status":"error","message":"[^"]+",)?"success":false,"error":"'),
}
"""How the errors of each shape begin."""
