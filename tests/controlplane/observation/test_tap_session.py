"""What a tap over many proxies asks and shows. Without a proxy, under a clock of its own."""

import pytest

from controlplane.model import Endpoint, Workload
from controlplane.model.change import Change, Changes, Position
from controlplane.observation.directory import Directory, Member, of_workload
from controlplane.observation.resources import Resource
from controlplane.observation.tap_session import LEAST_TO_CHOOSE_FROM, MAX_QUEUED, TapSession
from controlplane.resolve.index import Index
from meshcore.taps import TapEvent, tap_filter


def directory(*values):
    index = Index()
    index.feed(Changes(Position("e", 1, "m"), tuple(Change(1, one.kind, one.key, one) for one in values)))
    return Directory(index)


def workload(name, namespace="shop", **more):
    return Workload(namespace=namespace, name=name, account=more.pop("account", name), **more)


WEB, API = workload("web-1", account="web", labels={"app": "web"}), workload("api-1", account="api", labels={"app": "api"}, addresses=("10.0.0.2",))
MEMBER = of_workload(WEB)


def session(target=Resource("deployment", "web", "shop"), to=None, origin=None, known=(), **ask):
    made = TapSession(1, target, to, origin, tap_filter(**{"max_rps": 1000, **ask}), directory(WEB, API, *known))
    made.tapped.add(1)
    return made


def request(stream=1, **more):
    return TapEvent(kind="req", stream=stream, method="GET", path="/", **more)


def end(stream=1):
    return TapEvent(kind="end", stream=stream)


def shown(made, *events, member=MEMBER, now_s=0.0, proxy=1, hidden=0, dropped=0):
    made.take(proxy, member, list(events), hidden, dropped, now_s)
    return [one.event for one in made.read()]


def test_the_end_of_what_is_shown_follows_and_of_what_is_hidden_does_not():
    made = session(max_rps=1)
    events = shown(made, request(1), request(2), end(2), end(1), end(3))
    assert [(one.kind, one.stream) for one in events] == [("req", 1), ("end", 1)]
    assert made.progress().hidden == 1


@pytest.mark.parametrize(("to", "labels", "is_shown"), [
    (Resource("service", "users", "shop"), {"service": "users", "namespace": "shop"}, True),
    (Resource("service", "users", "shop"), {"service": "users", "namespace": "other"}, False),
    (Resource("deployment", "api", "shop"), {"workload": "api-1", "namespace": "shop", "service": "users"}, True),
    (Resource("deployment", "web", "shop"), {"workload": "api-1", "namespace": "shop"}, False),
    (Resource("namespace", "shop"), {}, False),
])  # fmt: skip
def test_the_other_side_is_known_by_labels_and_by_the_model(to, labels, is_shown):
    assert bool(shown(session(to=to), request(dst="10.9.9.9:80", dst_labels=labels, direction="out"))) is is_shown


def test_who_calls_is_known_by_identity_or_by_address():
    made = session(origin=Resource("deployment", "api", "shop"))
    assert shown(made, request(src="127.0.0.1:5", src_id="spiffe://m/ns/shop/sa/api", direction="in"))
    assert shown(made, request(2, src="10.0.0.2:5", direction="in"))
    assert not shown(made, request(3, src="10.0.0.3:5", src_id="spiffe://m/ns/shop/sa/web", direction="in"))


def test_an_address_that_two_workloads_share_says_nothing_of_who_it_is():
    two = session(known=[workload("x", addresses=("10.0.0.9",)), workload("y", addresses=("10.0.0.9",))])
    assert shown(two, request(src="10.0.0.9:7", direction="in"))[0].src_labels == {}


def test_an_endpoint_is_known_by_its_address_and_port():
    endpoint = Endpoint(namespace="shop", service="users", name="u", address="10.0.0.2", port=80, workload="api-1")
    labels = shown(session(known=[endpoint]), request(dst="10.0.0.2:80", direction="out"))[0].dst_labels
    assert (labels["service"], labels["deployment"]) == ("users", "api")


@pytest.mark.parametrize(("to", "origin", "asked"), [
    (Resource("service", "users", "shop"), None, {"to_labels": {"service": "users", "namespace": "shop"}, "max_rps": 5}),
    (Resource("authority", "a.test:80"), None, {"authority": "a.test:80", "max_rps": 5}),
    (Resource("deployment", "api", "shop"), None, {"to_labels": {}, "max_rps": LEAST_TO_CHOOSE_FROM}),
    (None, Resource("namespace", "shop"), {"from_": "ns/shop", "max_rps": 5}),
    (None, Resource("serviceaccount", "api", "shop"), {"from_": "ns/shop/sa/api", "max_rps": 5}),
    (None, Resource("deployment", "api", "shop"), {"from_": "", "max_rps": LEAST_TO_CHOOSE_FROM}),
])  # fmt: skip
def test_proxies_are_asked_what_they_can_judge(to, origin, asked):
    ask = session(to=to, origin=origin, max_rps=5).ask()
    assert {name: getattr(ask, name) for name in asked} == asked


def test_a_busy_proxy_gets_what_the_quiet_ones_leave():
    made = session(max_rps=100)
    made.tapped = {1, 2, 3}
    assert made.shares(0.0) == {}
    for proxy, seen in ((1, 5), (2, 400), (3, 400)):
        made.take(proxy, MEMBER, [], seen, 0, 0.5)
    shares = made.shares(1.0)
    assert shares == {1: pytest.approx(45), 2: pytest.approx(45), 3: pytest.approx(45)}, "ten a second, for half of one"
    assert made.shares(1.5) == {}, "not more often than once a second"
    for proxy, seen in ((1, 5), (2, 405), (3, 405)):
        made.take(proxy, MEMBER, [], seen, 0, 1.7)
    assert made.shares(2.0) == {1: 100, 2: 100, 3: 100}, "when there is little to see, nobody is held back"


def test_who_tells_once_a_second_keeps_its_share_in_between():
    """Shares were made anew of what had come since the last time: whoever had not spoken since then seemed to have nothing, and the others
    were told to show more. Ten proxies sent two and a half times what was shown."""
    made = session(max_rps=100)
    made.tapped = {1, 2}
    made.shares(0.0)
    told = []
    for tick in range(1, 12):
        now_s = tick * 0.95
        for proxy in made.tapped:
            if (tick + proxy) % 2:  # each in every other span
                made.take(proxy, MEMBER, [], 1000 * tick, 0, now_s)
        told.append(made.shares(now_s))
    assert [shares for shares in told if shares] == [{1: pytest.approx(50), 2: pytest.approx(50)}], told


def test_counts_of_proxies_that_left_stay():
    made = session()
    shown(made, hidden=7, dropped=3)
    made.left(1)
    assert (made.progress().hidden, made.progress().dropped, made.progress().proxies) == (7, 3, 0)


def test_a_reader_who_is_too_slow_loses_events_and_is_told():
    made = session(max_rps=100_000)
    made.take(1, MEMBER, [request(number) for number in range(MAX_QUEUED + 5)], 0, 0, 0.0)
    assert made.progress().dropped == 5 and len(made.read(10**6)) == MAX_QUEUED


@pytest.mark.parametrize(("target", "wanted"), [
    (Resource("deployment", "web", "shop"), True), (Resource("deployment", "", "shop"), True), (Resource("deployment"), True),
    (Resource("namespace"), True), (Resource("namespace", "other"), False), (Resource("pod", "web-2"), False), (Resource("job"), False),
])  # fmt: skip
def test_a_target_says_whose_proxies_are_asked(target, wanted):
    assert session(target).wants(MEMBER) is wanted


def test_two_proxies_that_count_alike_have_ids_of_their_own():
    made = session(Resource("namespace", "shop"))
    other = Member("shop", "api-1", of_workload(API).labels)
    ids = [(one.worker, one.stream) for one in shown(made, request(1)) + shown(made, request(1), member=other, proxy=2)]
    assert len(set(ids)) == 2
