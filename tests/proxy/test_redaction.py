"""What is shown of captured fields and bodies: never a credential."""

import pytest

from meshcore.redaction import HIDDEN, shown_body, shown_fields

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize("name", [
    "Authorization", "PROXY-AUTHORIZATION", "cookie", "Set-Cookie", "X-Api-Key", "X-Auth-Token", "X-My-Secret", "session-id",
    "X-Vault-Token", "my-password", "x-forwarded-client-cert",
])  # fmt: skip
def test_a_field_that_carries_a_credential_keeps_only_its_name(name):
    assert shown_fields(f"{name}: {SECRET}\r\n".encode()) == ((name.lower(), HIDDEN),)


def test_other_fields_are_shown_as_they_came():
    raw = b"Host: a.test\r\nX-Kind:  tea \r\nAccept: a\r\nAccept: b\r\n\r\n"
    assert shown_fields(raw) == (("host", "a.test"), ("x-kind", "tea"), ("accept", "a"), ("accept", "b"))
    assert shown_fields(b"x-mine: 1\r\n", secret={"x-mine"}) == (("x-mine", HIDDEN),)


def test_a_line_cut_by_the_bound_is_left_out():
    assert shown_fields(b"Host: a.test\r\nAuthorizati") == (("host", "a.test"),)
    assert shown_fields(b"Host: a.test\r\nX-Half: val") == (("host", "a.test"),)


@pytest.mark.parametrize("body", [
    f'{{"user": "a", "password": "{SECRET}", "n": 1}}', f'{{"access_token":"{SECRET}"}}', f"a=1&password={SECRET}&b=2",
    f"client_secret={SECRET}", f'{{"password": "quo\\"te {SECRET}"}}', f'{{"apiKey": "{SECRET}', f'{{"api_key": {SECRET}}}',
    f'{{"Authorization": "Bearer {SECRET}"}}',
])  # fmt: skip
def test_members_named_like_secrets_lose_their_value(body):
    shown = shown_body(body.encode(), ())
    assert SECRET not in shown and HIDDEN in shown


def test_other_bodies_are_shown():
    assert shown_body(b'{"shipping": "fast", "n": [1, 2]}', ()) == '{"shipping": "fast", "n": [1, 2]}'
    assert shown_body("grüße".encode(), ()) == "grüße"
    assert shown_body("grüße"[:3].encode()[:-1], ()) == "gr\\xc3", "cut in the middle of a character"


def test_what_cannot_be_looked_through_is_told_by_its_length():
    assert shown_body(bytes(range(256)), ()) == "[256 octets]"
    assert shown_body(b"\x1f\x8b" + SECRET.encode(), (("content-encoding", "gzip"),)) == "[17 octets, gzip]"
