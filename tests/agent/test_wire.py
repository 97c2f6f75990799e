"""Messages of discovery, hostile ones among them, as plain values."""

import ipaddress
import random

import pytest

from meshcore.agent.answers import Endpoint, Endpoints, Policy
from meshcore.agent.wire import Held, endpoint_of, policy_of
from meshcore.api import destination_pb2, discovery_pb2, net_pb2

ME = "spiffe://mesh.test/ns/shop/sa/web"


def tcp(host: str, port: int) -> net_pb2.TcpAddress:
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=int(address)), port=port)
    six = net_pb2.IPv6(first=int(address) >> 64, last=int(address) & (2**64 - 1))
    return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv6=six), port=port)


def addr(host: str = "192.0.2.1", port: int = 80, identity: str | None = None, **more) -> destination_pb2.WeightedAddr:
    found = destination_pb2.WeightedAddr(addr=tcp(host, port), **more)
    if identity is not None:
        found.tls_identity.uri_like_identity.uri = identity
    return found


def added(*addrs, **labels: str) -> destination_pb2.Update:
    return destination_pb2.Update(add=destination_pb2.WeightedAddrSet(addrs=addrs, metric_labels=labels))


def removed(*places: tuple[str, int]) -> destination_pb2.Update:
    return destination_pb2.Update(remove=destination_pb2.AddrSet(addrs=[tcp(*place) for place in places]))


def nobody(exists: bool) -> destination_pb2.Update:
    return destination_pb2.Update(no_endpoints=destination_pb2.NoEndpoints(exists=exists))


def change(*updates, is_whole: bool = False, **more) -> discovery_pb2.Change:
    return discovery_pb2.Change(id=1, is_whole=is_whole, updates=updates, **more)


def places(held: Held) -> list[str]:
    return [one.address for one in held.answer.endpoints.endpoints]


def test_deltas_add_and_remove_and_a_whole_replaces():
    held = Held()
    assert held.apply(change(added(addr("192.0.2.1"), addr("192.0.2.2")), is_whole=True, digest=b"one"))
    assert held.apply(change(added(addr("2001:db8::1", 8080)), removed(("192.0.2.1", 80)), digest=b"two"))
    assert places(held) == ["192.0.2.2:80", "[2001:db8::1]:8080"] and held.answer.digest == b"two"
    assert held.apply(change(added(addr("192.0.2.9")), is_whole=True))
    assert places(held) == ["192.0.2.9:80"]
    assert not held.apply(change(added(addr("192.0.2.9")))), "the same again is no change"


def test_what_is_current_changes_nothing_and_keeps_the_digest():
    held = Held()
    held.apply(change(added(addr()), is_whole=True, digest=b"one"))
    before = held.answer
    assert not held.apply(change(is_current=True))
    assert held.answer is before


def test_no_such_name_and_a_name_without_endpoints_are_told_apart():
    held = Held()
    held.apply(change(nobody(exists=False), is_whole=True))
    assert held.answer.endpoints == Endpoints(exists=False)
    held.apply(change(nobody(exists=True)))
    assert held.answer.endpoints == Endpoints(exists=True)
    held.apply(change(added(addr())))
    assert held.answer.endpoints.exists and places(held) == ["192.0.2.1:80"]


def test_an_endpoint_has_the_labels_of_its_set_and_its_own_win():
    found = endpoint_of(addr(metric_labels={"pod": "web-1", "zone": "b"}, identity=ME, weight=7), {"zone": "a", "service": "web"})
    assert found == Endpoint(
        host="192.0.2.1", port=80, weight=7, identity=ME, labels={"pod": "web-1", "service": "web", "zone": "b"}
    )


@pytest.mark.parametrize("identity", ["", "http://x", "spiffe://", "spiffe://d", "spiffe://d/a/../b", "spiffe://d/a b", "spiffe://d/" + "a" * 3000])
def test_an_endpoint_whose_identity_nobody_can_prove_is_left_out_and_never_spoken_to_in_the_clear(identity):
    assert endpoint_of(addr(identity=identity), {}) is None
    held = Held()
    held.apply(change(added(addr("192.0.2.1"), addr("192.0.2.2")), is_whole=True))
    held.apply(change(added(addr("192.0.2.1", identity=identity))))
    assert places(held) == ["192.0.2.2:80"] and held.refused == 1


@pytest.mark.parametrize("bad", [destination_pb2.WeightedAddr(), addr(port=0), addr(port=65_536)])
def test_what_is_no_address_is_left_out_and_the_good_ones_stay(bad):
    held = Held()
    held.apply(change(added(bad, addr("192.0.2.7")), is_whole=True))
    assert places(held) == ["192.0.2.7:80"] and held.refused == 1


def test_hints_tell_what_an_endpoint_speaks():
    h2 = addr(protocol_hint=destination_pb2.ProtocolHint(h2=destination_pb2.ProtocolHint.H2()))
    opaque = addr(protocol_hint=destination_pb2.ProtocolHint(opaque=destination_pb2.ProtocolHint.Opaque()))
    assert endpoint_of(h2, {}).speaks_http2 and endpoint_of(opaque, {}).is_opaque


def test_a_policy_that_is_empty_is_the_default():
    assert policy_of(discovery_pb2.Policy()) == Policy()


def test_what_a_policy_cannot_mean_is_left_at_its_default():
    message = discovery_pb2.Policy(
        identities=[ME, "nonsense"],
        rules=[
            discovery_pb2.Rule(name="bad", matches=[discovery_pb2.Match(path="/a", prefix="/b"), discovery_pb2.Match(path="no slash")]),
            discovery_pb2.Rule(
                name="fields",
                matches=[discovery_pb2.Match(headers=one) for one in ({"Upper": "1"}, {"host": "a"}, {"a b": "1"}, {"a": "1\r\n"}, {"a": " 1"})],
            ),
            discovery_pb2.Rule(name="half", matches=[discovery_pb2.Match(path="/a?b"), discovery_pb2.Match(path="/a")]),
            discovery_pb2.Rule(name="weightless", splits=[discovery_pb2.Split(path="a", weight=0)], timeout_ms=4_000_000_000),
        ],
        traffic=discovery_pb2.Traffic(balancer="magic", mtls="maybe", retry_budget=float("nan"), backoff_ms=2_000, max_backoff_ms=1),
    )
    policy = policy_of(message)
    assert policy.identities == (ME,)
    assert [rule.name for rule in policy.rules] == ["half", "weightless"], "a rule of which nothing can be matched takes nothing"
    assert [match.path for match in policy.rules[0].matches] == ["/a"]
    assert policy.rules[1].splits == () and policy.rules[1].timeout_ms == 86_400_000
    traffic = policy.traffic
    assert (traffic.balancer, traffic.mtls, traffic.retry_budget) == ("peak_ewma", "permissive", 0.2)
    assert traffic.max_backoff_ms == 2_000


def test_random_octets_as_messages_never_raise(rng: random.Random):
    for _ in range(3_000):
        data = rng.randbytes(rng.randrange(0, 80))
        try:
            message = discovery_pb2.Change.FromString(data)
        except Exception:  # protobuf's own verdict, before us
            continue
        Held().apply(message)


def test_any_sequence_of_updates_ends_as_a_simple_oracle_says(rng: random.Random):
    held, oracle, exists = Held(), {}, True
    hosts = [f"192.0.2.{number}" for number in range(6)]
    for _ in range(500):
        is_whole = rng.random() < 0.1
        updates = []
        if is_whole:
            oracle.clear()
        for _ in range(rng.randrange(1, 3)):
            kind = rng.random()
            chosen = rng.sample(hosts, rng.randrange(1, 4))
            if kind < 0.6:
                weight = rng.randrange(1, 9)
                updates.append(added(*(addr(host, weight=weight) for host in chosen)))
                oracle.update(dict.fromkeys(chosen, weight))
                exists = True
            elif kind < 0.9:
                updates.append(removed(*((host, 80) for host in chosen)))
                for host in chosen:
                    oracle.pop(host, None)
            else:
                exists = rng.random() < 0.5
                updates.append(nobody(exists))
                oracle.clear()
        held.apply(change(*updates, is_whole=is_whole))
        assert {one.host: one.weight for one in held.answer.endpoints.endpoints} == oracle
        assert held.answer.endpoints.exists == exists
