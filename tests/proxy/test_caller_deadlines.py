"""`l5d-ctx-deadline`: how long a caller of a Linkerd mesh still waits. Linkerd hands it on; here it ends the request."""

import time

import pytest

SECOND = 1_000_000_000
LONG = 3600 * SECOND


def silent(connection):
    connection.read_request()
    connection.wait_closed()


def deadline(left_ns, age_ns=0):
    now = time.time_ns()
    return f"{now - age_ns} {now + left_ns}"


@pytest.fixture
def trusting(proxy, raw_client):
    def start(server, **words):
        listeners = [{"name": "web", "address": "127.0.0.1:0", "trust_mesh_headers": True}]
        return raw_client(proxy(to=server, listeners=listeners, **words))

    return start


def test_a_request_ends_when_its_caller_stops_waiting(raw_server, trusting):
    answer = trusting(raw_server(silent)).get(headers=[("l5d-ctx-deadline", deadline(SECOND // 5))])
    assert (answer.status, answer.get("x-mesh-reason")) == (504, "deadline_exceeded")


def test_a_request_whose_caller_has_stopped_waiting_is_not_sent(raw_server, trusting):
    server = raw_server()
    answer = trusting(server).get(headers=[("l5d-ctx-deadline", deadline(-SECOND, age_ns=2 * SECOND))])
    assert (answer.status, answer.get("x-mesh-reason")) == (504, "deadline_exceeded")
    assert not server.requests


def test_of_several_deadlines_and_the_timeout_of_the_route_the_strictest_counts(raw_server, trusting):
    client = trusting(raw_server(silent), route={"total_timeout": "300ms"})
    fields = [("l5d-ctx-deadline", deadline(LONG)), ("l5d-ctx-deadline", deadline(SECOND // 10))]
    assert client.get(headers=fields).get("x-mesh-reason") == "deadline_exceeded"


def test_a_clock_that_is_off_does_not_lengthen_a_deadline(raw_server, trusting):
    """The caller's machine is an hour ahead: what it meant is the time between the two."""
    now = time.time_ns() + LONG
    answer = trusting(raw_server(silent)).get(headers=[("l5d-ctx-deadline", f"{now} {now + SECOND // 5}")])
    assert answer.get("x-mesh-reason") == "deadline_exceeded"


@pytest.mark.parametrize("text", ["", "1", "1 ", "1 2 3", "1  2", "x 1", "1 -2", "9" * 20 + " 1", "1 " + "9" * 20])
def test_what_is_no_deadline_is_none_and_is_handed_on(raw_server, trusting, text):
    server = raw_server()
    assert trusting(server).get(headers=[("l5d-ctx-deadline", text)]).status == 200
    assert server.requests[0].get("l5d-ctx-deadline") == text.strip()


def test_a_deadline_that_is_kept_is_handed_on(raw_server, trusting):
    server, text = raw_server(), deadline(LONG)
    assert trusting(server).get(headers=[("l5d-ctx-deadline", text)]).status == 200
    assert server.requests[0].get("l5d-ctx-deadline") == text


def test_strangers_set_no_deadline(raw_server, proxy, raw_client):
    server = raw_server()
    client = raw_client(proxy(to=server))
    assert client.get(headers=[("l5d-ctx-deadline", deadline(-SECOND, age_ns=2 * SECOND))]).status == 200
    assert "l5d-ctx-deadline" not in server.requests[0].names
