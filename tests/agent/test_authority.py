"""What an authority names."""

import pytest

from meshcore.agent.authority import authority_of


@pytest.mark.parametrize(
    ("text", "path", "is_address"),
    [
        ("web", "web:80", False),
        ("Web.Shop", "web.shop:80", False),
        ("web.shop.", "web.shop:80", False),
        ("web.shop:8080", "web.shop:8080", False),
        ("_grpc.web:1", "_grpc.web:1", False),
        ("192.0.2.1", "192.0.2.1:80", True),
        ("192.0.2.1:65535", "192.0.2.1:65535", True),
        ("[::1]:443", "[::1]:443", True),
        ("[FD00::A]", "[fd00::a]:80", True),
    ],
)
def test_a_name_or_an_address_with_its_port(text, path, is_address):
    found = authority_of(text)
    assert found is not None and (found.path, found.is_address) == (path, is_address)


@pytest.mark.parametrize(
    "text",
    ["", ".", ":80", "web:", "web:0", "web:65536", "web:80:80", "web:+80", "web: 80", "web shop", "a..b", "-a", "[web]:80",
     "[::1", "[::1]80", "::1", "a" * 64, "a." * 127 + "aa", "web/x", "web\x00", "wéb", "web:٣"],
)  # fmt: skip
def test_what_cannot_be_a_name_is_none(text):
    assert authority_of(text) is None
