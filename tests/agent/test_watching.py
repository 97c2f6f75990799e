"""Names that a proxy asks for, and what it is told: bindings only, no stream and no proxy."""

import asyncio

from meshcore.agent.answers import Answer, Endpoint, Endpoints
from meshcore.agent.outside import Outside
from meshcore.agent.watching import MAX_WATCHED, Watching
from meshcore.api import discovery_pb2
from meshcore.bindings import Binding, Lookup, Negative
from tests.agent.test_wire import added, addr, change, nobody

ROUTE = "outbound-http"
WEB = Endpoint(host="192.0.2.1", port=80)


class Told:
    """A Watching, and everything it told its proxy and its stream."""

    def __init__(self, *, saved=None, falls_back=False, is_connected=True) -> None:
        self.rows: list = []
        self.began: list[str] = []
        self.ended: list[str] = []
        self.watching = Watching(
            self.rows.extend, saved=saved or {}, http_routes=[ROUTE], falls_back=falls_back, outside=Outside(), is_connected=lambda: is_connected
        )
        self.watching.on_began = lambda watched: self.began.append(watched.path)
        self.watching.on_ended = lambda watched: self.ended.append(watched.path)

    def ask(self, *names: str, route: str = ROUTE) -> None:
        self.watching.look_up([Lookup(route=route, name=name) for name in names])

    def say(self, path: str, *updates, **more) -> None:
        number = next(watched.number for watched in self.watching.all() if watched.path == path)
        message = change(*updates, **more)
        message.id = number
        self.watching.changed([message])

    def last(self, name: str) -> Binding | Negative | None:
        return next((row[3] for row in reversed(self.rows) if row[1] == name), None)


def addresses(bound: Binding) -> list[str]:
    return [one.address for one in bound.clusters[0].endpoints]


def test_a_name_is_asked_for_once_and_every_key_of_it_is_told():
    told = Told()
    told.ask("web.shop:80", "Web.shop", "web.shop.:80")
    told.ask("web.shop:80", route="forward-0-tcp")
    assert told.began == ["web.shop:80"] and not told.rows
    told.say("web.shop:80", added(addr()), is_whole=True)
    assert {(row[0], row[1]) for row in told.rows} == {
        (ROUTE, "web.shop:80"), (ROUTE, "Web.shop"), (ROUTE, "web.shop.:80"), ("forward-0-tcp", "web.shop:80"),
    }  # fmt: skip
    assert addresses(told.last("Web.shop")) == ["192.0.2.1:80"]
    told.ask("web.shop.:80")
    assert len(told.rows) == 5, "what is known is told at once"


def test_a_name_that_nobody_uses_any_more_is_let_go_of_and_remembered_for_the_disk():
    told = Told()
    told.ask("web.shop:80", "Web.shop")
    told.say("web.shop:80", added(addr()), is_whole=True)
    told.watching.forget([(ROUTE, "web.shop:80", "")])
    assert not told.ended
    told.watching.forget([(ROUTE, "Web.shop", ""), (ROUTE, "never", "")])
    assert told.ended == ["web.shop:80"]
    assert list(told.watching.answers()) == ["web.shop:80"]


def test_what_lies_on_disk_serves_at_once_when_the_control_plane_is_away():
    told = Told(saved={"web.shop:80": Answer(Endpoints((WEB,)), digest=b"d")}, is_connected=False)
    told.ask("web.shop:80")
    assert addresses(told.last("web.shop:80")) == ["192.0.2.1:80"]
    told.say("web.shop:80", is_current=True)
    told.say("web.shop:80", added(addr("192.0.2.9")), is_whole=True)
    assert addresses(told.last("web.shop:80")) == ["192.0.2.9:80"]


def test_a_control_plane_that_is_there_gets_a_moment_before_the_disk_is_used():
    async def scenario() -> None:
        told = Told(saved={"web.shop:80": Answer(Endpoints((WEB,)))})
        told.ask("web.shop:80")
        assert not told.rows
        for _ in range(200):
            await asyncio.sleep(0.05)
            if told.rows:
                break
        assert addresses(told.last("web.shop:80")) == ["192.0.2.1:80"]

    asyncio.run(scenario())


def test_what_cannot_be_a_name_is_refused_and_too_many_are():
    told = Told()
    told.ask("what is this", "web.shop:80")
    assert told.last("what is this") == Negative(reason="name_invalid")
    told.watching.look_up([Lookup(route=ROUTE, name=f"n{number}.shop:80") for number in range(MAX_WATCHED)])
    assert told.last(f"n{MAX_WATCHED - 1}.shop:80") == Negative(reason="name_unavailable")
    assert len(told.began) == MAX_WATCHED


def test_a_name_of_nobody_falls_back_where_connections_are_intercepted():
    told = Told(falls_back=True)
    told.ask("elsewhere.test:80")
    told.say("elsewhere.test:80", nobody(exists=False), is_whole=True)
    assert told.last("elsewhere.test:80") == Negative(reason="name_unknown", fall_back=True)
    told.say("elsewhere.test:80", added(addr()))
    assert isinstance(told.last("elsewhere.test:80"), Binding)


def test_a_split_is_told_when_all_its_names_are_known_and_again_when_one_changes():
    told = Told()
    told.ask("web.shop:80")
    rule = discovery_pb2.Rule(splits=[discovery_pb2.Split(path="next.shop:80", weight=1), discovery_pb2.Split(path="web.shop:80", weight=9)])
    policy = discovery_pb2.Policy(fully_qualified_name="web.shop.svc.cluster.local", port=80, rules=[rule])
    told.say("web.shop:80", added(addr()), is_whole=True, policy=policy)
    assert told.began == ["web.shop:80", "next.shop:80"] and not told.rows
    told.say("next.shop:80", added(addr("192.0.2.2")), is_whole=True)
    bound = told.last("web.shop:80")
    assert sorted(len(cluster.endpoints) for cluster in bound.clusters) == [1, 1]
    assert {split.cluster: split.weight for split in bound.routes[0].split} == {"next.shop:80": 1, "web.shop.svc.cluster.local:80": 9}
    told.say("next.shop:80", added(addr("192.0.2.3")))
    assert sorted(len(cluster.endpoints) for cluster in told.last("web.shop:80").clusters) == [1, 2]
    told.say("web.shop:80", policy=discovery_pb2.Policy(fully_qualified_name="web.shop.svc.cluster.local", port=80))
    assert told.ended == ["next.shop:80"]


def test_names_that_lead_to_each_other_are_let_go_of_together():
    told = Told()
    told.ask("a.shop:80")
    for path, other in (("a.shop:80", "b.shop:80"), ("b.shop:80", "a.shop:80")):
        splits = [discovery_pb2.Split(path=name, weight=1) for name in (other, path)]
        told.say(path, added(addr()), is_whole=True, policy=discovery_pb2.Policy(rules=[discovery_pb2.Rule(splits=splits)]))
    assert isinstance(told.last("a.shop:80"), Binding)
    told.watching.forget([(ROUTE, "a.shop:80", "")])
    assert sorted(told.ended) == ["a.shop:80", "b.shop:80"]


def test_a_split_to_a_refused_name_does_not_hold_up_the_rest():
    told = Told()
    told.ask("web.shop:80")
    rule = discovery_pb2.Rule(splits=[discovery_pb2.Split(path="next.shop:80", weight=1)], matches=[discovery_pb2.Match(prefix="/next")])
    told.say("web.shop:80", added(addr()), is_whole=True, policy=discovery_pb2.Policy(rules=[rule]))
    told.say("next.shop:80", failed=discovery_pb2.Failed(code=8, message="too many"))
    assert isinstance(told.last("web.shop:80"), Binding)


def test_a_refusal_is_told_with_its_reason_and_the_name_can_be_asked_for_again():
    told = Told()
    for code, reason in ((7, "name_refused"), (8, "name_unavailable")):
        told.ask("web.shop:80")
        told.say("web.shop:80", failed=discovery_pb2.Failed(code=code, message="no"))
        assert told.last("web.shop:80") == Negative(reason=reason)
    assert told.began == ["web.shop:80", "web.shop:80"]


def test_strict_mutual_tls_leaves_out_who_has_no_identity():
    told = Told()
    told.ask("web.shop:80")
    strict = discovery_pb2.Policy(traffic=discovery_pb2.Traffic(mtls="strict"), identities=["spiffe://d/ns/shop/sa/web"])
    right, wrong = addr("192.0.2.2", identity="spiffe://d/ns/shop/sa/web"), addr("192.0.2.3", identity="spiffe://d/ns/shop/sa/db")
    told.say("web.shop:80", added(addr(), right, wrong), is_whole=True, policy=strict)
    endpoint, = told.last("web.shop:80").clusters[0].endpoints
    assert (endpoint.address, endpoint.tls, endpoint.identity) == ("192.0.2.2:80", "mesh", "spiffe://d/ns/shop/sa/web")


def test_a_change_of_a_name_that_was_just_dropped_is_passed_over():
    told = Told()
    told.ask("web.shop:80")
    number = told.watching.all()[0].number
    told.watching.forget([(ROUTE, "web.shop:80", "")])
    late = change(added(addr()), is_whole=True)
    late.id = number
    told.watching.changed([late])
    assert not told.rows


def test_rules_without_endpoints_of_their_own_still_lead_to_others():
    told = Told()
    told.ask("web.shop:80")
    rule = discovery_pb2.Rule(splits=[discovery_pb2.Split(path="next.shop:80", weight=1)])
    told.say("web.shop:80", nobody(exists=False), is_whole=True, policy=discovery_pb2.Policy(rules=[rule]))
    told.say("next.shop:80", added(addr("192.0.2.2")), is_whole=True)
    assert isinstance(told.last("web.shop:80"), Binding)
