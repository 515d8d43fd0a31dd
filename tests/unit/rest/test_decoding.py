"""Bodies and queries: what clients really send is understood, and anything else is refused by name."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import suppress
from typing import Annotated
from urllib.parse import quote_plus

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import MultiDict

from homewire.errors import InvalidInput
from homewire.rest.decoding import MAX_FIELDS, decode_fields, decode_form, decode_json
from homewire.rest.operation import Paging

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=cut"
JSON = "application/json"


class Claim(msgspec.Struct, kw_only=True, rename="camel"):
    """Every kind of field that the forms of the service have."""

    claim_code: str
    home_id: int = 0
    claimable: bool = False
    tag: str | msgspec.UnsetType = msgspec.UNSET


def multipart(fields: dict[str, str], boundary: str = "cut") -> bytes:
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return ("".join(parts) + f"--{boundary}--\r\n").encode()


def urlencoded(fields: dict[str, str]) -> bytes:
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields.items()).encode()


def refusal(content_type: str, body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode_form(content_type, body, Claim)
    return caught.value


FIELDS = {"claimCode": "A&B=ä+ ", "homeId": "9007199254740993", "claimable": "1", "unknown": "x"}
MEANT = Claim(claim_code="A&B=ä+ ", home_id=9007199254740993, claimable=True)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, urlencoded(FIELDS)),
        (f"{URLENCODED}; charset=UTF-8", urlencoded(FIELDS)),
        ("", urlencoded(FIELDS)),
        ("text/plain", urlencoded(FIELDS)),
        (MULTIPART, multipart(FIELDS)),
        ('Multipart/Form-Data; charset=utf-8; boundary="cut"', multipart(FIELDS)),
        (JSON, json.dumps(FIELDS).encode()),
        (
            f"{JSON}; charset=utf-8",
            b' {"claimCode": "A&B=\xc3\xa4+ ", "homeId": 9007199254740993, "claimable": true}',
        ),
        # Clients that say it is a form and send JSON.
        (URLENCODED, json.dumps(FIELDS).encode()),
        ("", b'\n{"claimCode": "A&B=\\u00e4+ ", "homeId": 9007199254740993, "claimable": 1, "tag": null}'),
    ],
)
def test_form_decodes_alike_in_every_encoding(content_type: str, body: bytes) -> None:
    assert decode_form(content_type, body, Claim) == MEANT


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, b"claimCode=x&homeId=&claimable=&tag="),
        (MULTIPART, multipart({"claimCode": "x", "homeId": "", "claimable": "", "tag": ""})),
    ],
)
def test_empty_form_field_is_absent(content_type: str, body: bytes) -> None:
    assert decode_form(content_type, body, Claim) == Claim(claim_code="x")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_form_has_booleans_as_clients_write_them(text: str, value: bool) -> None:
    decoded = decode_form(URLENCODED, f"claimCode=x&claimable={text}".encode(), Claim)
    assert decoded.claimable is value


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        (URLENCODED, b"", "claimCode"),
        (URLENCODED, b"claimCode=x&homeId=ten", "homeId"),
        (URLENCODED, b"claimCode=&homeId=1", "claimCode"),
        (URLENCODED, b"claimCode=x&homeId=1.5", "homeId"),
        (URLENCODED, b"claimCode=x&homeId=" + b"9" * 5000, "homeId"),
        (URLENCODED, b"claimCode=x&claimable=maybe", "claimable"),
        (URLENCODED, b"claimCode=%ff", "body"),
        (URLENCODED, b"\xff\xfe", "body"),
        (URLENCODED, b"&".join([b"a=1"] * (MAX_FIELDS + 1)), "body"),
        (MULTIPART, b"", "body"),
        (MULTIPART, multipart(FIELDS)[:-20], "body"),
        (MULTIPART, multipart({"claimCode": "x"}).replace(b"x", b"\xff"), "body"),
        (MULTIPART, multipart({str(number): "" for number in range(MAX_FIELDS + 1)}), "body"),
        ("multipart/form-data", multipart(FIELDS), "Content-Type"),
        # aiohttp gives a header's bytes above 127 as surrogates.
        ("multipart/form-data; boundary=\udcff", multipart(FIELDS), "Content-Type"),
        (JSON, b"", "body"),
        (JSON, b"[]", "body"),
        (JSON, b"{", "body"),
        (JSON, b'{"claimCode": "\\ud800"}', "body"),
        (JSON, b'{"claimCode": null}', "claimCode"),
        (JSON, b'{"claimCode": ["x"]}', "claimCode"),
        (JSON, b'{"claimCode": "x", "homeId": {}}', "homeId"),
        (JSON, b'{"claimCode": "x", "homeId": NaN}', "body"),
        (JSON, b'{"a":' * 40_000, "body"),
        (JSON, '{"claimCode": "x"}'.encode("utf-16"), "body"),
    ],
)
def test_form_that_cannot_be_understood_is_refused_by_name(
    content_type: str, body: bytes, field: str
) -> None:
    assert refusal(content_type, body).data["field"] == field


def test_file_is_no_field() -> None:
    body = multipart(FIELDS).replace(b'name="claimCode"', b'name="claimCode"; filename="a.txt"')
    assert refusal(MULTIPART, body).data == {"field": "claimCode", "problem": "is required"}


def test_large_part_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: object, **__: object) -> None:
        raise AssertionError("a file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    decoded = decode_form(MULTIPART, multipart({"claimCode": "x" * 79_000}), Claim)
    assert len(decoded.claim_code) == 79_000


def test_refusal_never_quotes_the_request() -> None:
    secret = "hunter2"
    for content_type, body in (
        (URLENCODED, f"claimCode=x&homeId={secret}".encode()),
        (JSON, json.dumps({"claimCode": {secret: secret}}).encode()),
        (JSON, json.dumps({secret: [secret]}).encode()),
        (MULTIPART, multipart({"claimable": secret})),
    ):
        assert secret not in repr(refusal(content_type, body).data)


@given(st.binary(max_size=200), st.sampled_from([URLENCODED, MULTIPART, JSON, "", "multipart/form-data"]))
def test_no_bytes_break_a_form(body: bytes, content_type: str) -> None:
    _either_way(content_type, body)


@given(st.text(max_size=60), st.sampled_from(["", "multipart/form-data;", "multipart/form-data; boundary="]))
@example("\udcff", "multipart/form-data; boundary=")
@example('"', "multipart/form-data; boundary=")
def test_no_content_type_breaks_a_form(text: str, start: str) -> None:
    _either_way(start + text, multipart(FIELDS))


@given(
    st.lists(
        st.sampled_from([*re.findall(rb"--cut|\r\n|[^\r\n]+", multipart(FIELDS)), b"\n", b"--", b"\xff"])
    )
)
def test_no_multipart_body_in_pieces_breaks_a_form(pieces: list[bytes]) -> None:
    _either_way(MULTIPART, b"".join(pieces))


def _either_way(content_type: str, body: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(decode_form(content_type, body, Claim), Claim)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_any_json_is_understood_or_refused(value: object) -> None:
    with suppress(InvalidInput):
        assert isinstance(decode_json(json.dumps(value).encode(), Claim), Claim)


def test_json_is_as_strict_as_its_types() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_json(b'{"claimCode": "x", "homeId": "1"}', Claim)
    assert caught.value.data["field"] == "homeId"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"skip": "-1"}, "skip"),
        ({"limit": "x"}, "limit"),
        ({"skip": "9" * 19}, "skip"),
        ({"limit": ""}, "limit"),
    ],
)
def test_query_is_refused_by_name(query: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_fields("query", query, Paging)
    assert caught.value.data["field"] == field


def test_query_is_text_that_means_something() -> None:
    assert decode_fields("query", {"skip": "3", "limit": "0", "other": "x"}, Paging) == Paging(
        skip=3, limit=0
    )


def test_query_s_names_are_those_of_the_document() -> None:
    assert (
        decode_fields("query", MultiDict([("claimCode", "A"), ("claimCode", "B")]), Claim).claim_code == "A"
    )
    with pytest.raises(InvalidInput) as refused:
        decode_fields("query", MultiDict(claim_code="A"), Claim)
    assert refused.value.data == {"field": "claimCode", "problem": "is required"}


class Kept(msgspec.Struct, kw_only=True):
    """As a value is put."""

    value: msgspec.Raw
    key: str | None = None


@pytest.mark.parametrize(
    "value",
    [
        rb'"\ud800"',
        rb'"\uDFFF"',
        rb'["\ud83d\ude00","\ud83d","\\ud800"]',
        rb'{"\udc00\ud800":"\ud800\ud83d\ude00"}',
        '"\ufdd0\\ud800"'.encode(),
    ],
)
def test_half_of_a_surrogate_pair_is_kept_where_any_json_may_stand(value: bytes) -> None:
    decoded = decode_json(b'{"key":"k","value":' + value + b"}", Kept)
    assert (bytes(decoded.value), decoded.key) == (value, "k")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rb'{"value":1,"key":"\ud800"}', "key"),
        (rb'{"value":"\ud800","key":"\udfff"}', "key"),
        (rb'{"value":"\ud800","key":5}', "key"),
        (rb'{"value":"\ud800"', "body"),
        (rb'{"value":"\ud80"}', "body"),
        (rb'{"key":"\ud800"}', "value"),
    ],
)
def test_half_of_a_surrogate_pair_is_no_text(body: bytes, field: str) -> None:
    assert refused_json(body) == field


def refused_json(body: bytes) -> str:
    with pytest.raises(InvalidInput) as refused:
        decode_json(body, Kept)
    return str(refused.value.data["field"])


def test_plus_that_was_not_escaped_is_one() -> None:
    class Contact(msgspec.Struct, rename="camel"):
        phone_number: str
        email: str
        name: str

    body = b"phoneNumber=+14155550123&email=ada+home@example.com&name=Ada+L"
    assert decode_form(URLENCODED, body, Contact) == Contact("+14155550123", "ada+home@example.com", "Ada L")


class Typed(msgspec.Struct):
    """A member of each type."""

    integer: int | None = None
    number: float = 0.0
    text: Annotated[str, msgspec.Meta(min_length=1)] = "x"
    flag: bool = False
    some: list[int] = []
    things: dict[str, int] = {}
    few: Annotated[int, msgspec.Meta(le=5)] = 0


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (b'{"integer": "x"}', "integer", "must be an integer, or null, not a string"),
        (b'{"number": true}', "number", "must be a number, not true or false"),
        (b'{"text": null}', "text", "must be a string, not null"),
        (b'{"text": ""}', "text", "must be a string of length >= 1"),
        (b'{"flag": 1}', "flag", "must be true or false, not an integer"),
        (b'{"some": {}}', "some", "must be an array, not an object"),
        (b'{"things": []}', "things", "must be an object, not an array"),
        (b'{"few": 6}', "few", "must be an integer <= 5"),
        (b"[]", "body", "must be an object, not an array"),
    ],
)
def test_types_are_said_in_words_of_json(body: bytes, field: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_json(body, Typed)
    assert refusal.value.data == {"field": field, "problem": problem}


def test_error_of_query_parameter_names_no_string() -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_fields("query", {"few": "many"}, Typed)
    assert refusal.value.data == {"field": "few", "problem": "must be an integer"}
