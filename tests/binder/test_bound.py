"""What the engine is told of a name: clusters by id, shares and alternatives, settings, headers; or why there is nothing."""

from urllib.parse import unquote

import pytest

from meshcore.bindings import Binding, First, Negative, Share, binding_plan
from meshcore.binder.bound import WHOLE, bound
from meshcore.binder.policies import ClientTls, Policies
from meshcore.binder.rules import Rules
from meshcore.binder.transform import Transformer
from meshcore.namers.interpreter import LocalInterpreter, Resolution
from meshcore.namers.namer import LiveNamers
from meshcore.namers.states import Address, Replicas
from meshcore.naming import EMPTY_DTAB, Alt, Bound, Empty, Fail, Failed, Leaf, Neg, Path, Pending, Union, Weighted, read_dtab, read_path

NAME = read_path("/svc/web")
WEB = read_path("/#/io.l5d.fs/web")
NEXT = read_path("/#/io.l5d.fs/next")
STATES = {
    WEB: Replicas.of([Address("10.0.0.1", 80), Address("10.0.0.2", 80, 2.0, (("zone", "a"),))]),
    NEXT: Replicas.of([Address("2001:db8::1", 8080)]),
}


def rules(**keys):
    return Rules(route="http", interpreter=LocalInterpreter(LiveNamers(), EMPTY_DTAB), **keys)


def leaf(id, residual=Path()):
    return Leaf(Bound(id, residual))


def told(tree, states=STATES, local=EMPTY_DTAB, name=NAME, **keys):
    """What is told, which the engine can take."""
    found = bound(rules(**keys), name, local, Resolution(tree, states))
    binding_plan(found)
    return found


def addresses(found, cluster):
    return {one.address: one.weight for one in next(c for c in found.clusters if c.name == cluster).endpoints}


def test_a_bound_name_is_a_cluster_of_its_id_with_the_weights_of_its_addresses():
    found = told(leaf(WEB))
    assert found.trees == {WHOLE: "http:/#/io.l5d.fs/web"}
    assert addresses(found, "http:/#/io.l5d.fs/web") == {"10.0.0.1:80": 1, "10.0.0.2:80": 2}
    assert found.clusters[0].endpoints[1].labels == {"zone": "a"}


def test_a_union_is_a_share_and_the_least_weight_is_not_lost():
    found = told(Union((Weighted(0.999, leaf(WEB)), Weighted(0.001, leaf(NEXT)))))
    assert found.trees[WHOLE] == Share(of=((999, "http:/#/io.l5d.fs/web"), (1, "http:/#/io.l5d.fs/next")))
    assert addresses(found, "http:/#/io.l5d.fs/next") == {"[2001:db8::1]:8080": 1}


def test_an_alternation_is_an_order():
    found = told(Alt((leaf(WEB), Union((Weighted(1, leaf(NEXT)), Weighted(1, leaf(WEB)))))))
    assert found.trees[WHOLE] == First(of=("http:/#/io.l5d.fs/web", Share(of=((1, "http:/#/io.l5d.fs/next"), (1, "http:/#/io.l5d.fs/web")))))
    assert len(found.clusters) == 2


@pytest.mark.parametrize(
    ("tree", "reason", "why"),
    [
        (Neg(), "name_unbound", "/svc/web: no such name"),
        (Fail(), "name_unbound", "/svc/web: no such name"),
        (Empty(), "name_unbound", "/svc/web: has no instances"),
        (Failed("consul refuses, 100 %"), "name_unavailable", "/svc/web: consul refuses, 100 %"),
        (Pending(), "name_unavailable", "/svc/web: nobody has answered yet"),
    ],
)
def test_a_name_without_a_binding_is_refused_and_told_why(tree, reason, why):
    found = told(tree, {})
    assert isinstance(found, Negative) and found.reason == reason
    assert unquote(found.headers["l5d-err"]) == why and found.body == f"{why}\n"


def test_settings_of_the_service_and_of_the_client_come_together():
    found = told(
        leaf(WEB),
        services=Policies(({"prefix": "/svc", "total_timeout": "2s", "retry_budget": {"ratio_percent": 7}},)),
        clients=Policies(({"prefix": "/", "balancer": "round_robin", "timeout": "300ms"},
                          {"prefix": "/#/io.l5d.fs", "breaker": {"consecutive_failures": 2}})),
    )
    settings = found.clusters[0].settings
    assert (settings.balancer, settings.breaker.consecutive_failures, settings.retry_budget.ratio_percent) == ("round_robin", 2, 7)
    assert (str(found.routes[0].timeout), str(found.routes[0].total_timeout)) == ("300ms", "2s")


def test_of_several_clients_the_most_patient_decides_how_long_an_attempt_may_take():
    clients = Policies(({"prefix": "/#/io.l5d.fs/web", "timeout": "100ms"}, {"prefix": "/#/io.l5d.fs/next", "timeout": "200ms"}))
    both = Union((Weighted(1, leaf(WEB)), Weighted(1, leaf(NEXT))))
    assert str(told(both, clients=clients).routes[0].timeout) == "200ms"
    assert told(both, clients=Policies(clients.configs[:1])).routes[0].timeout == 0


def test_names_with_the_same_settings_share_them():
    clients = Policies.of_all(balancer="random", breaker={"consecutive_failures": 3})
    assert told(leaf(WEB), clients=clients).clusters[0].settings is told(leaf(NEXT), clients=clients).clusters[0].settings


def test_upstreams_are_told_how_the_request_got_there():
    found = told(leaf(WEB, read_path("/users/7")), local=read_dtab("/svc/web=>/srv/next"))
    edits = found.routes[0].request_headers
    assert edits.set == {
        "l5d-dst-service": "/svc/web", "l5d-dst-client": "/#/io.l5d.fs/web", "l5d-dst-residual": "/users/7",
        "l5d-ctx-dtab": "/svc/web=>/srv/next",
    }  # fmt: skip
    assert list(edits.remove) == ["l5d-dtab"]
    assert "l5d-ctx-dtab" in told(leaf(WEB)).routes[0].request_headers.remove


def test_a_transformer_changes_addresses_and_makes_another_client_of_it():
    found = told(leaf(WEB), transformers=(Transformer("port", port=4141),))
    label = "http:/%/io.l5d.port/4141/#/io.l5d.fs/web"
    assert addresses(found, label) == {"10.0.0.1:4141": 1, "10.0.0.2:4141": 2}
    assert found.routes[0].request_headers.set["l5d-dst-client"] == label.removeprefix("http:")


def test_only_addresses_of_this_machine_are_left_by_the_transformer_for_incoming_requests():
    states = {WEB: Replicas.of([Address("127.0.0.1", 80), Address("192.0.2.77", 80)])}
    found = told(leaf(WEB), states, transformers=(Transformer("localhost"),))
    assert addresses(found, "http:/%/io.l5d.localhost/#/io.l5d.fs/web") == {"127.0.0.1:80": 1}


def test_two_addresses_that_a_transformer_makes_one_are_one_endpoint_with_both_weights():
    states = {WEB: Replicas.of([Address("10.0.0.1", 80), Address("10.0.0.1", 81), Address("10.0.0.2", 80)])}
    found = told(leaf(WEB), states, transformers=(Transformer("port", port=4141),))
    assert addresses(found, "http:/%/io.l5d.port/4141/#/io.l5d.fs/web") == {"10.0.0.1:4141": 2, "10.0.0.2:4141": 1}


def test_tls_names_the_endpoint_by_what_the_prefix_captured():
    tls = ClientTls("{service}.example", ("/ca.pem",))
    found = bound(rules(clients=Policies(({"prefix": "/#/io.l5d.fs/{service}", "tls": tls},))), NAME, EMPTY_DTAB,
                  Resolution(leaf(WEB), STATES))
    endpoint = found.clusters[0].endpoints[0]
    assert (endpoint.identity, endpoint.sni) == ("dns:web.example", "web.example")
    assert endpoint.tls is not None and "/ca.pem" in endpoint.tls


def test_a_name_that_was_the_beginning_of_the_path_is_taken_off_it():
    route = told(leaf(WEB), name=read_path("/svc/api/v1"), consumes=True).routes[0]
    assert (route.match.prefix, route.rewrite.prefix) == ("/api/v1", "/")


def test_a_branch_that_has_not_said_where_it_is_has_no_endpoint_yet():
    found = told(Union((Weighted(1, leaf(WEB)), Weighted(1, leaf(NEXT)))), {**STATES, NEXT: Pending()})
    assert addresses(found, "http:/#/io.l5d.fs/next") == {}


def test_a_name_none_of_whose_ids_can_tell_its_addresses_is_refused_with_what_they_say():
    both = Union((Weighted(1, leaf(WEB)), Weighted(1, leaf(NEXT))))
    failed = {WEB: Failed("timed out"), NEXT: Failed("refused")}
    found = told(both, failed)
    assert isinstance(found, Negative) and found.reason == "name_unavailable"
    assert found.body == "/svc/web: /#/io.l5d.fs/web: timed out; /#/io.l5d.fs/next: refused\n"
    assert isinstance(told(both, {**STATES, NEXT: Failed("refused")}), Binding)
