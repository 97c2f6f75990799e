"""Edits of heads: prefix, host, fields; in both directions, and nothing else touched."""

import pytest

from tests.scenario.servers import response


@pytest.mark.parametrize("match, to, sent, seen", [
    ({"prefix": "/users"}, "/v1", "/users/7?a=1", "/v1/7?a=1"),
    ({"prefix": "/users"}, "/v1", "/users", "/v1"),
    ({"prefix": "/users"}, "/", "/users/7", "/7"),
    ({"prefix": "/users"}, "/", "/users", "/"),
    ({"prefix": "/"}, "/base", "/x", "/base/x"),
    ({"prefix": "/users"}, "/v1/", "/users/7", "/v1/7"),
    ({"path": "/exact"}, "/other", "/exact?q", "/other?q"),
])
def test_prefix_is_replaced_and_the_query_kept(raw_server, proxy, raw_client, only_meshcore, match, to, sent, seen):
    server = raw_server()
    assert raw_client(proxy(to=server, route={"match": match, "rewrite": {"prefix": to}})).get(sent).status == 200
    assert server.requests[0].path == seen


def test_host_is_replaced_and_the_old_one_told(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    raw_client(proxy(to=server, route={"rewrite": {"host": "inner.test:81"}})).get("/", host="outer.test")
    assert server.requests[0].all("host") == ["inner.test:81"]
    assert server.requests[0].get("x-forwarded-host") == "outer.test"


def test_request_fields_are_set_added_and_removed(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    edits = {"set": {"x-set": "new"}, "add": {"x-add": "more"}, "remove": ["x-gone"]}
    client = raw_client(proxy(to=server, route={"request_headers": edits}))
    client.get("/", [("X-Set", "old"), ("x-sEt", "older"), ("X-Add", "one"), ("X-Gone", "1"), ("X-Kept", "k")])
    seen = server.requests[0]
    assert [seen.all(n) for n in ("x-set", "x-add", "x-gone", "x-kept")] == [["new"], ["one", "more"], [], ["k"]]


def test_response_fields_are_set_added_and_removed(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server(response(headers={"X-Set": "old", "X-Add": "one", "X-Gone": "1", "X-Kept": "k"}))
    edits = {"set": {"x-set": "new", "x-fresh": "f"}, "add": {"x-add": "more"}, "remove": ["x-gone"]}
    answer = raw_client(proxy(to=server, route={"response_headers": edits})).get()
    assert [answer.all(n) for n in ("x-set", "x-fresh", "x-add", "x-gone", "x-kept")] == [["new"], ["f"], ["one", "more"], [], ["k"]]


def test_untouched_fields_keep_order_case_and_value(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    fields = [("X-B", "2"), ("x-a", "1"), ("X-B", "3"), ("Accept", "*/*"), ("Cookie", "a=b; c=d"), ("X-Latin", "\xe4\xff"), ("X-Empty", "")]
    raw_client(proxy(to=server)).get("/", fields)
    sent = {name.lower().encode() for name, _ in fields}
    seen = [(n, v) for n, v in server.requests[0].fields if n.lower() in sent]
    assert [(n.lower(), v) for n, v in seen] == [(n.lower().encode(), v.encode("latin-1")) for n, v in fields]


def test_untouched_response_fields_keep_order_and_value(raw_server, proxy, raw_client, only_meshcore):
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-B: 2\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    answer = raw_client(proxy(to=raw_server(head))).get()
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert answer.names.index("x-b") == answer.names.index("set-cookie") + 1


@pytest.mark.parametrize("target", ["/a%20b", "/%2e%2e/x%00", "/a//b", "/?", "/a?b?c=/d&e", "/;p=1", "/ü".encode().decode("latin-1")])
def test_target_is_forwarded_octet_for_octet_or_refused(raw_server, proxy, raw_client, only_meshcore, target):
    server = raw_server()
    answer = raw_client(proxy(to=server)).get(target)
    if answer.status == 200:
        assert server.requests[0].path == target
    else:
        assert answer.reason == "bad_target"


def test_hundred_fields_survive_an_edit_in_their_midst(raw_server, proxy, raw_client, only_meshcore):
    server = raw_server()
    fields = [(f"X-{n}", f"value {n}") for n in range(95)]
    raw_client(proxy(to=server, route={"request_headers": {"remove": ["x-50"], "set": {"x-60": "new"}}})).get("/", fields)
    seen = server.requests[0]
    for name, value in fields:
        expected = {"X-50": [], "X-60": ["new"]}.get(name, [value])
        assert seen.all(name) == expected


def test_status_line_keeps_code_and_reason(raw_server, proxy, raw_client):
    answer = raw_client(proxy(to=raw_server(b"HTTP/1.1 299 Peculiar\r\nContent-Length: 0\r\n\r\n"))).get()
    assert answer.status == 299
