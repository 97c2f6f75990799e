"""What a proxy says about itself and its client, and what it keeps to itself."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.scenario.servers import response

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def seen_upstream(raw_server, proxy, raw_client, only_meshcore):
    """`seen_upstream(headers, **sections)`: the request as the upstream saw it."""

    def ask(headers=(), *, host="a.test", version="1.1", **words):
        server = raw_server()
        raw_client(proxy(to=server, **words)).get("/", headers, host=host, version=version)
        return server.requests[0]

    return ask


def test_via_names_the_protocol_and_the_proxy(seen_upstream):
    assert seen_upstream().all("via") == ["1.1 meshcore"]
    assert seen_upstream(version="1.0").all("via") == ["1.0 meshcore"]


def test_via_is_appended_to_those_before(seen_upstream):
    assert ", ".join(seen_upstream({"Via": "1.1 edge"}).all("via")) == "1.1 edge, 1.1 meshcore"


def test_via_pseudonym_is_configured(seen_upstream):
    assert seen_upstream(forwarding={"via": "gate-7"}).all("via") == ["1.1 gate-7"]


def test_via_is_on_responses_too(raw_server, proxy, raw_client, only_meshcore):
    assert raw_client(proxy(to=raw_server())).get().all("via") == ["1.1 meshcore"]


def test_client_address_scheme_and_host_are_told(seen_upstream):
    seen = seen_upstream(host="a.test:8080")
    assert (seen.get("x-forwarded-for"), seen.get("x-forwarded-proto"), seen.get("x-forwarded-host")) == ("127.0.0.1", "http", "a.test:8080")


def test_client_address_is_appended_to_those_before(seen_upstream):
    assert ", ".join(seen_upstream({"X-Forwarded-For": "192.0.2.1"}).all("x-forwarded-for")) == "192.0.2.1, 127.0.0.1"


def test_several_forwarded_fields_become_one_list_in_order(seen_upstream):
    seen = seen_upstream([("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2")])
    assert ", ".join(seen.all("x-forwarded-for")) == "192.0.2.1, 192.0.2.2, 127.0.0.1"


def test_replace_forgets_what_the_client_claimed(seen_upstream):
    claims = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.test"}
    seen = seen_upstream(claims, forwarding={"x_forwarded": "replace"})
    assert [seen.all(n) for n in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")] == [["127.0.0.1"], ["http"], ["a.test"]]


def test_off_says_nothing(seen_upstream):
    seen = seen_upstream(forwarding={"x_forwarded": "off", "request_id": False, "traceparent": False})
    assert not [n for n in seen.names if n.startswith("x-") or n == "traceparent"]


def test_request_id_is_made_when_there_is_none(seen_upstream):
    first, second = seen_upstream().get("x-request-id"), seen_upstream().get("x-request-id")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert first != second


@pytest.mark.parametrize("given, kept", [("abc-123_~.X", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("a\"b", False), ("", False)])
def test_request_id_is_kept_when_it_is_harmless(seen_upstream, given, kept):
    assert (seen_upstream({"X-Request-Id": given}).all("x-request-id") == [given]) is kept


def test_trace_is_started_when_there_is_none(seen_upstream):
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-9a-f]", seen_upstream().get("traceparent"))


def test_trace_of_the_caller_goes_on(seen_upstream):
    seen = seen_upstream({"traceparent": TRACE, "tracestate": "vendor=1"})
    assert seen.get("traceparent").split("-")[1] == TRACE.split("-")[1]
    assert seen.get("tracestate") == "vendor=1"


@pytest.mark.parametrize("bad", ["ff" + TRACE[2:], TRACE[:-1], "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACE.upper(), "junk"])
def test_invalid_trace_is_replaced_by_a_new_one(seen_upstream, bad):
    values = seen_upstream({"traceparent": bad}).all("traceparent")
    assert len(values) == 1
    assert values != [bad]


HOP = ["Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Upgrade"]


@pytest.mark.parametrize("name", HOP)
def test_hop_by_hop_field_of_a_request_is_not_forwarded(seen_upstream, name):
    assert seen_upstream({name: "x"}).all(name) == []


@pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Connection", "Upgrade"])
def test_hop_by_hop_field_of_a_response_is_not_forwarded(raw_server, proxy, raw_client, only_meshcore, name):
    assert raw_client(proxy(to=raw_server(response(headers={name: "x"})))).get().all(name) == []


def test_fields_named_by_connection_are_not_forwarded(seen_upstream):
    seen = seen_upstream([("Connection", "x-one, X-Two"), ("Connection", "keep-alive , x-three"), ("X-One", "1"), ("X-Two", "2"), ("x-three", "3"), ("X-Four", "4")])
    assert [n for n in seen.names if n in ("x-one", "x-two", "x-three", "x-four", "connection")] == ["x-four"]


def test_fields_named_by_connection_of_a_response_are_not_forwarded(raw_server, proxy, raw_client, only_meshcore):
    answer = raw_client(proxy(to=raw_server(response(headers={"Connection": "X-Foo", "X-Foo": "1", "X-Bar": "2"})))).get()
    assert (answer.all("x-foo"), answer.all("x-bar")) == ([], ["2"])


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding", "Via", "X-Forwarded-For", "Authorization", "Cookie"])
def test_connection_can_not_strip_what_others_rely_on(raw_server, proxy, raw_client, only_meshcore, name):
    server = raw_server()
    client = raw_client(proxy(to=server))
    answer = client.post("/", b"hello", {"Connection": name, "Authorization": "secret", "Cookie": "c=1"})
    if answer.status == 200:
        seen = server.requests[0]
        assert bytes(seen.body) == b"hello" and seen.all("host") == ["a.test"]
        assert seen.all("x-forwarded-for") == ["127.0.0.1"] and seen.all("via") == ["1.1 meshcore"]
    else:
        assert answer.status == 400


MESH = {"l5d-client-id": "spiffe://td/admin", "x-forwarded-client-cert": "URI=spiffe://td/admin", "L5d-Dtab": "/svc => /evil"}


def test_mesh_fields_of_strangers_are_dropped(seen_upstream):
    assert not [n for n in seen_upstream(MESH).names if n in {k.lower() for k in MESH}]


def test_mesh_fields_are_kept_on_a_trusted_listener(seen_upstream):
    listeners = [{"name": "web", "address": "127.0.0.1:0", "trust_mesh_headers": True}]
    seen = seen_upstream(MESH, listeners=listeners)
    assert [seen.get(n) for n in MESH] == list(MESH.values())


def test_date_of_the_upstream_is_kept(raw_server, proxy, raw_client):
    date = "Tue, 15 Nov 1994 08:12:31 GMT"
    assert raw_client(proxy(to=raw_server(response(headers={"Date": date})))).get().get("date") == date


@pytest.mark.parametrize("status", [200, 204, 304, 503])
def test_a_response_without_a_date_gets_the_time_it_came(status, raw_server, proxy, raw_client, only_meshcore):
    # RFC 9110 6.6.1
    began = int(time.time())
    [date] = raw_client(proxy(to=raw_server(response(status)))).get().all("date")
    assert began <= parsedate_to_datetime(date).timestamp() <= time.time()


def test_max_forwards_zero_is_not_forwarded(raw_server, proxy, raw_client, only_meshcore):
    # RFC 9110 7.6.2
    server = raw_server()
    client = raw_client(proxy(to=server))
    client.request("OPTIONS", "/", {"Max-Forwards": "0"})
    answer = client.read_response()
    if server.requests:
        assert answer.status == 200
    else:
        assert answer.status in (200, 204, 405, 501)
