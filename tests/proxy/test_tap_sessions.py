"""A session turns records into events, chooses what the engine can not, and ends when closed."""

import asyncio
import threading

import pytest
from meshcore.tap_sessions import MAX_REMEMBERED, Choice, TapSession, event_of, open_session, plan
from meshcore.taps import TapEvent, TapFilterError, tap_filter

REQUEST = TapEvent(kind="req", worker=0, stream=1, src="10.0.0.7:40112", dst="10.0.0.9:9000", method="GET", path="/x")
RESPONSE = TapEvent(kind="rsp", worker=0, stream=1, status=200)
END = TapEvent(kind="end", worker=0, stream=1, duration_us=5)
RECORD = (
    0,
    2,
    7,
    1_700_000_000_000_000_000,
    "10.0.0.7",
    40112,
    "10.0.0.9:9000",
    "GET",
    "a.test",
    "/x",
    0,
    0,
    0,
    0,
    0,
    0,
    3,
    4,
    255,  # no gRPC status
    None,  # no stream was reset
    False,  # HTTP, not TCP
    False,  # in plaintext
    "",
    0,  # nothing is said of the endpoint
    None,  # nothing was captured
)


def session_over(batches):
    closed = []
    waiting = list(batches)
    session = TapSession(lambda: waiting.pop(0) if waiting else [], lambda: closed.append(True), arm=lambda: not waiting)
    return session, closed


def test_a_session_hands_out_batches_and_waits_no_longer_than_asked():
    session, _ = session_over([[REQUEST, RESPONSE]])
    assert session.read(1.0) == [REQUEST, RESPONSE]
    assert session.read(0.01) == []


def test_a_session_is_an_iterator_that_ends_when_closed_from_another_thread():
    session, closed = session_over([[REQUEST], [RESPONSE]])
    threading.Timer(0.1, session.close).start()
    assert list(session) == [REQUEST, RESPONSE]
    assert closed == [True]


def test_a_session_is_closed_once():
    session, closed = session_over([])
    with session:
        session.close()
    assert closed == [True]


def test_a_session_can_be_awaited():
    async def collect():
        session, closed = session_over([[REQUEST], [], [END]])
        async with session:
            return [await anext(session), await anext(session)], closed

    events, closed = asyncio.run(collect())
    assert events == [REQUEST, END]
    assert closed == [True]


def test_a_session_tells_what_it_lost():
    session, _ = session_over([[TapEvent(kind="req", dropped=3)]])
    session.read(0)
    assert session.dropped == 3


# --- what the engine is asked ---


@pytest.mark.parametrize(
    ("conditions", "exact"),
    [
        ({}, {"max_rps": 1.0}),
        ({"method": "get", "max_rps": 5}, {"method_bit": 0, "max_rps": 5.0}),
        ({"method": "PATCH"}, {"method_bit": 8, "max_rps": 1.0}),
        ({"scheme": "https"}, {"scheme": 2, "max_rps": 1.0}),
        ({"to": "users"}, {"cluster_slot": 4, "max_rps": 1.0}),
        ({"to": "10.0.0.9:9000"}, {"to": "10.0.0.9:9000", "max_rps": 1.0}),
        ({"route": "web"}, {"route_slot": 3, "max_rps": 1.0}),
        ({"from": "10.0.0.7"}, {"source": "10.0.0.7", "max_rps": 1.0}),
    ],
)
def test_what_the_engine_can_compare_is_left_to_it(conditions, exact):
    asked, chosen_here = plan(tap_filter(**conditions), {"web": 3}, {"users": 4})
    assert asked == {"authority": "", "path": "", **exact}
    assert not chosen_here


@pytest.mark.parametrize(
    "conditions",
    [{"method": "PURGE"}, {"to": "10.0.0.9"}, {"from": "10.0.0.0/8"}, {"from": "10.0.0.7:40112"}, {"from": "::1"}],
)
def test_what_it_can_not_is_chosen_here_and_not_limited_there(conditions):
    asked, chosen_here = plan(tap_filter(**conditions), {}, {})
    assert chosen_here
    assert asked["max_rps"] == 0.0


@pytest.mark.parametrize(
    ("conditions", "text"),
    [({"to": "user"}, "--to: no cluster 'user'; clusters are: users"), ({"route": "x"}, "--route")],
)
def test_a_name_that_is_not_configured_is_refused(conditions, text):
    with pytest.raises(TapFilterError, match=text):
        plan(tap_filter(**conditions), {"web": 3}, {"users": 4})


def test_a_record_becomes_an_event_with_names():
    event = event_of(RECORD, [""], {3: "web"}, {4: "users"})
    assert (event.kind, event.worker, event.stream) == ("req", 2, 7)
    assert (event.src, event.dst, event.route, event.cluster) == ("10.0.0.7:40112", "10.0.0.9:9000", "web", "users")


def test_an_ipv6_client_gets_brackets_and_a_lost_route_no_name():
    event = event_of((*RECORD[:4], "::1", 5, *RECORD[6:]), [""], {}, {})
    assert event.src == "[::1]:5"
    assert event.route == ""


# --- choosing ---


def test_the_response_and_the_end_of_a_chosen_request_follow_it_and_no_others():
    choice = Choice(tap_filter(**{"from": "10.0.0.0/8"}))
    other = TapEvent(kind="req", stream=2, src="192.168.0.1:1")
    stranger = TapEvent(kind="rsp", stream=2)
    assert choice.select([other, REQUEST, stranger, RESPONSE, END], 0.0) == [REQUEST, RESPONSE, END]
    assert choice.select([END], 0.0) == []


@pytest.mark.parametrize(("rate", "seconds", "shown"), [(3, 1, 3), (3, 4, 12), (0.5, 4, 2), (0.1, 10, 1)])
def test_the_rate_is_a_ceiling_on_what_is_shown(rate, seconds, shown):
    choice = Choice(tap_filter(**{"from": "10.0.0.0/8", "max_rps": rate}))
    count = 0
    for tenth in range(seconds * 10):
        requests = [TapEvent(kind="req", stream=tenth * 10 + i, src="10.0.0.1:1") for i in range(10)]
        count += len(choice.select(requests, tenth / 10))
    assert count == shown


def test_requests_whose_end_was_lost_are_forgotten_in_the_end():
    choice = Choice(tap_filter(**{"from": "10.0.0.0/8", "max_rps": 100000}))
    for stream in range(MAX_REMEMBERED + 10):
        choice.select([TapEvent(kind="req", stream=stream, src="10.0.0.1:1")], stream / 1000)
    assert choice.select([TapEvent(kind="rsp", stream=0)], 0.0) == []
    assert len(choice._open) == MAX_REMEMBERED


# --- on an engine ---


class FakeHub:
    """One session over records given by hand."""

    def __init__(self):
        self.records, self.lost, self.closed, self.asked = [], 40, [], None

    def open(self, **asked):
        self.asked = asked
        return 5

    def read(self, index):
        records, self.records = self.records, []
        return records

    def arm(self, index):
        return not self.records

    def counts(self, index):
        return 0, 0, self.lost

    def close(self, index):
        self.closed.append(index)


class FakeEngine:
    def slots_of(self, kind):
        return {"routes": {"web": 3}, "clusters": {"users": 4}, "labels": {}}[kind]

    def slots_version(self, kind):
        return 1


def test_a_session_reads_its_hub_and_gives_it_back(monkeypatch):
    monkeypatch.setattr("meshcore._fastpath.reasons", lambda: [("none", 200, "nobody", "")], raising=False)
    hub = FakeHub()
    with open_session(FakeEngine(), hub, tap_filter(to="users")) as session:
        hub.records = [RECORD]
        (event,) = session.read(1.0)
        assert (event.route, event.cluster, event.reason) == ("web", "users", "")
        hub.records, hub.lost = [RECORD], 43
        assert session.read(1.0)[0].dropped == 3
        assert session.dropped == 3
    assert hub.closed == [5]
