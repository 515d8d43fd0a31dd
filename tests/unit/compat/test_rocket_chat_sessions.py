"""The session that Rocket.Chat's clients see: a pure function of the record."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from typing import Any, Final

import msgspec
import pytest

from homewire.compat.rocket_chat import decode_sort, most_important, selected, shown
from homewire.errors import InvalidInput
from homewire.sessions.models import Session

LOGIN_MS: Final = 1_684_859_625_202  # 2023-05-23T16:33:45.202Z
CLOSED_MS: Final = 1_684_864_591_599  # 2023-05-23T17:56:31.599Z
KEY: Final = "v1.7.secret"
CHROME: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/113.0.0.0 Safari/537.36"
)
FIREFOX: Final = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"
SESSION: Final = Session(
    id="646ceae9a8c3a3ba32d0e897",
    project_id=7,
    user_id=42,
    app_id="rocket.chat",
    started_ms=LOGIN_MS,
    expires_ms=LOGIN_MS + 10**9,
    last_access_ms=CLOSED_MS,
    address="172.20.0.2",
    user_agent=CHROME,
    authentication_type="Bearer",
    version=3,
    closed_ms=CLOSED_MS,
    host="localhost:3000",
    node="f0313fa9-ebe6-4a84-8580-3104f6a09988",
    roles=("user", "admin", "livechat-agent"),
    key_hash=hashlib.sha256(KEY.encode()).hexdigest(),
)


def seen(session: Session, now_ms: int = CLOSED_MS) -> Any:
    """As it goes to the client."""
    return msgspec.json.decode(msgspec.json.encode(shown(session, now_ms)))


def test_document_s_example_has_this_session() -> None:
    assert seen(SESSION) == {
        "_id": "646ceae9a8c3a3ba32d0e897",
        "type": "session",
        "sessionId": "646ceae9a8c3a3ba32d0e897",
        "instanceId": "f0313fa9-ebe6-4a84-8580-3104f6a09988",
        "loginToken": base64.b64encode(hashlib.sha256(KEY.encode()).digest()).decode(),
        "ip": "172.20.0.2",
        "host": "localhost:3000",
        "device": {
            "type": "browser",
            "name": "Chrome",
            "longVersion": "113.0.0.0",
            "os": {"name": "Windows", "version": "10"},
            "version": "113.0.0",
        },
        "userId": "42",
        "roles": ["user", "admin", "livechat-agent"],
        "mostImportantRole": "admin",
        "loginAt": "2023-05-23T16:33:45.202Z",
        "day": 23,
        "month": 5,
        "year": 2023,
        "searchTerm": "ChromebrowserWindows646ceae9a8c3a3ba32d0e89742",
        "createdAt": "2023-05-23T16:33:45.202Z",
        "_updatedAt": "2023-05-23T17:56:31.599Z",
        "closedAt": "2023-05-23T17:56:31.599Z",
        "lastActivityAt": "2023-05-23T17:56:31.599Z",
    }


def test_live_session_has_every_member_but_closed_at() -> None:
    live = dataclasses.replace(SESSION, closed_ms=0, user_agent="", host="", node="", address="")
    assert seen(SESSION).keys() - seen(live).keys() == {"closedAt"}
    assert seen(live)["device"] == {
        "type": "other",
        "name": "",
        "longVersion": "",
        "os": {"name": "", "version": ""},
        "version": "",
    }


def test_session_whose_time_is_over_closed_then() -> None:
    expired = dataclasses.replace(SESSION, closed_ms=0, expires_ms=LOGIN_MS + 60_000)
    assert seen(expired)["closedAt"] == "2023-05-23T16:34:45.202Z"
    assert "closedAt" not in seen(expired, now_ms=LOGIN_MS + 59_999)


def test_day_is_that_of_the_login_in_utc() -> None:
    at_midnight = dataclasses.replace(SESSION, started_ms=1_704_067_199_999)
    assert [seen(at_midnight)[part] for part in ("day", "month", "year")] == [31, 12, 2023]


@pytest.mark.parametrize(
    ("roles", "role"),
    [(["user"], "user"), (["guest", "user", "admin"], "admin"), (["guest"], "guest"), ([], "")],
)
def test_most_important_role_is_the_one_that_permits_most(roles: list[str], role: str) -> None:
    assert most_important(roles) == role


def listed(text: str, sort: str) -> list[str]:
    made = [
        dataclasses.replace(SESSION, id=name * 24, user_agent=agent, started_ms=LOGIN_MS + after)
        for name, agent, after in [("a", CHROME, 1), ("b", FIREFOX, 3), ("c", CHROME, 2), ("d", FIREFOX, 3)]
    ]
    return [
        each.id_[0] for each in selected([shown(each, CLOSED_MS) for each in made], text, decode_sort(sort))
    ]


@pytest.mark.parametrize(
    ("text", "sort", "names"),
    [
        ("", '{"loginAt":-1}', "bdca"),
        ("", '{"loginAt":1}', "acbd"),
        ("", '{"device.name":1,"loginAt":-1}', "cabd"),
        ("", '{"device.os.name":-1,"sessionId":-1}', "cadb"),
        ("", "{}", "abcd"),
        ("chrome", '{"loginAt":1}', "ac"),
        ("BROWSERubuntu", "{}", "bd"),
        ("c" * 24, "{}", "c"),
        (".*", "{}", ""),
    ],
)
def test_list_is_filtered_by_the_search_term_and_sorted(text: str, sort: str, names: str) -> None:
    assert "".join(listed(text, sort)) == names


@pytest.mark.parametrize(
    "sort",
    [
        "", "nonsense", "loginAt", "[]", "1", "null", '{"loginAt":2}', '{"loginAt":"1"}', '{"loginAt":true}',
        '{"loginAt":1.5}', '{"loginToken":1}', '{"__class__":1}', '{"loginAt":{"a":1}}', "{" * 1000,
        '{"a":' * 1000, "\ud800",
    ],
)  # fmt: skip
def test_any_other_order_is_refused(sort: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_sort(sort)
    assert refused.value.data["field"] == "sort"
