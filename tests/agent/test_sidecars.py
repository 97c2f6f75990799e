"""Sidecars in a mesh of real processes: who may speak, where names lead, what an outage changes."""

import http.client
import time

import pytest

from tests.agent.mesh import TRUST_DOMAIN, Plane, Sidecar, Steady, free_port, until

CALLER = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/client"


def two_of_web(mesh, plane: Plane) -> Sidecar:
    """A client's sidecar, before a service with two members."""
    plane.service("web")
    mesh.served(plane, "web", "web-1")
    mesh.served(plane, "web", "web-2")
    return mesh.sidecar(plane, "client")


def names_seen(sidecar: Sidecar, url: str, tries: int = 30) -> set[str]:
    answers = [sidecar.get(url) for _ in range(tries)]
    assert {status for status, _, _ in answers} == {200}, answers
    return {body.split(" ")[0] for _, body, _ in answers}


def both_answer(sidecar: Sidecar) -> None:
    """Both members of web get requests, in time: the balancer prefers whoever was faster."""
    seen: set[str] = set()
    until(lambda: seen.update(names_seen(sidecar, "http://web/", 5)) or seen == {"web-1", "web-2"}, f"both answer: {sidecar.said()}")


def test_members_speak_mutual_tls_and_applications_learn_who_calls(mesh):
    plane = mesh.plane()
    plane.service("web")
    web, _ = mesh.served(plane, "web", "web-1", "--require-mtls")
    client = mesh.sidecar(plane, "client")
    status, body, _ = client.get("http://web/hello")
    assert (status, body) == (200, f"web-1 GET /hello by {CALLER}\n")
    for name in ("web.shop", "web.shop.svc.cluster.local", "WEB.shop:80"):
        assert client.get(f"http://{name}/x")[0] == 200
    # Who shows no certificate does not come in.
    stranger = http.client.HTTPConnection("127.0.0.1", web.inbound, timeout=10)
    with pytest.raises((OSError, http.client.HTTPException)):
        stranger.request("GET", "/", headers={"l5d-client-id": CALLER})
        stranger.getresponse()


def test_a_stranger_comes_in_as_nobody_where_that_is_allowed_and_cannot_claim_to_be_somebody(mesh):
    plane = mesh.plane()
    plane.service("web")
    web, _ = mesh.served(plane, "web", "web-1")
    stranger = http.client.HTTPConnection("127.0.0.1", web.inbound, timeout=10)
    stranger.request("GET", "/", headers={"l5d-client-id": CALLER})
    assert stranger.getresponse().read().decode() == "web-1 GET / by nobody\n"
    stranger.close()


def test_endpoints_come_and_go_while_requests_run(mesh):
    plane = mesh.plane()
    client = two_of_web(mesh, plane)
    both_answer(client)
    plane.gone("web", "web-1")
    until(lambda: names_seen(client, "http://web/", 10) == {"web-2"}, "web-1 gets no more requests")
    web_1 = next(one for one in mesh.sidecars if one.name == "web-1")
    plane.endpoint("web", "web-1", web_1.inbound, account="web")
    until(lambda: "web-1" in names_seen(client, "http://web/", 10), "web-1 gets requests again")


def test_an_endpoint_that_is_somebody_else_is_not_spoken_to(mesh):
    plane = mesh.plane()
    plane.service("web")
    app, port = mesh.app("impostor")
    impostor = mesh.sidecar(plane, "thief", app_port=port)
    plane.endpoint("web", "web-1", impostor.inbound, account="web")
    client = mesh.sidecar(plane, "client")
    status, _, headers = client.get("http://web/")
    assert (status, headers["x-mesh-reason"]) == (502, "tls_upstream_wrong_identity")


def test_a_name_without_members_is_not_looked_for_elsewhere(mesh):
    plane = mesh.plane()
    plane.service("web")
    client = mesh.sidecar(plane, "client")
    status, _, headers = client.get("http://web/")
    assert (status, headers["x-mesh-reason"]) == (503, "no_endpoint")


def test_names_outside_the_mesh_lead_to_where_the_system_resolves_them(mesh):
    plane = mesh.plane()
    client = mesh.sidecar(plane, "client")
    _, port = mesh.app("outside")
    assert client.get(f"http://127.0.0.1:{port}/a")[:2] == (200, "outside GET /a by nobody\n")
    assert client.get(f"http://localhost.:{port}/b")[:2] == (200, "outside GET /b by nobody\n")
    status, _, headers = client.get("http://there-is-no-such.invalid/")
    assert (status, headers["x-mesh-reason"]) == (404, "name_unknown")


def test_a_name_that_comes_to_be_is_found_without_being_asked_for_again(mesh):
    plane = mesh.plane()
    client = mesh.sidecar(plane, "client")
    assert client.get("http://late.shop/")[0] == 404
    plane.service("late")
    mesh.served(plane, "late", "late-1")
    until(lambda: client.get("http://late.shop/")[0] == 200, "the new service is reached")


def test_policies_split_and_limit(mesh):
    plane = mesh.plane()
    plane.service("web")
    plane.service("next")
    mesh.served(plane, "web", "web-1")
    mesh.served(plane, "next", "next-1")
    rule = {"matches": [{"prefix": "/canary"}], "splits": [{"service": "next"}]}
    plane.do("put", values=[("route_policy", {"namespace": "shop", "name": "canary", "service": "web", "rules": [rule]})])
    client = mesh.sidecar(plane, "client")
    until(lambda: client.get("http://web/canary/x")[1].startswith("next-1"), "the rule's split")
    rule["matches"] = [{"headers": {"x-canary": "1"}}]
    plane.do("put", values=[("route_policy", {"namespace": "shop", "name": "canary", "service": "web", "rules": [rule]})])
    until(lambda: client.get("http://web/", **{"x-canary": "1"})[1].startswith("next-1"), "the rule of a field")
    assert client.get("http://web/")[1].startswith("web-1")
    assert client.get("http://web/", **{"x-canary": "2"})[1].startswith("web-1")
    assert client.get("http://web/other")[1].startswith("web-1")


def test_an_outage_of_the_control_plane_is_not_seen_by_applications(mesh):
    plane = mesh.plane()
    client = two_of_web(mesh, plane)
    both_answer(client)
    plane.kill()
    both_answer(client)
    status, _, headers = client.get("http://never-heard-of.shop/")
    assert (status, headers["x-mesh-reason"]) == (504, "lookup_timeout")
    plane.start()
    plane.gone("web", "web-1")
    until(lambda: names_seen(client, "http://web/", 10) == {"web-2"}, "what changed is learned after the outage")


def test_a_sidecar_that_starts_in_an_outage_serves_what_lies_on_disk(mesh):
    plane = mesh.plane()
    client = two_of_web(mesh, plane)
    both_answer(client)
    client.stop()
    plane.kill()
    client.start()
    both_answer(client)
    client.kill()  # this time without a chance to save anything
    client.start()
    both_answer(client)
    plane.start()
    plane.gone("web", "web-2")
    until(lambda: names_seen(client, "http://web/", 10) == {"web-1"}, "what changed is learned after the outage")


def test_no_request_fails_while_the_control_plane_is_killed_again_and_again(mesh):
    plane = mesh.plane()
    client = two_of_web(mesh, plane)
    names_seen(client, "http://web/")
    load = Steady(client, "http://web/")
    try:
        for number in range(3):
            time.sleep(0.3)
            plane.kill()
            time.sleep(0.3)
            plane.start()
            gone = f"web-{1 + number % 2}"
            stays = f"web-{2 - number % 2}"
            inbound = next(one.inbound for one in mesh.sidecars if one.name == gone)
            plane.gone("web", gone)
            until(lambda stays=stays: names_seen(client, "http://web/", 10) == {stays}, "the stale endpoint is let go of")
            plane.endpoint("web", gone, inbound, account="web")
            until(lambda: len(names_seen(client, "http://web/", 20)) == 2, "it is back")
    finally:
        load.stop()
    assert not load.failures, (load.failures[:5], client.said())
    assert load.requests > 100


def test_a_killed_application_and_a_killed_sidecar_fail_no_idempotent_request(mesh):
    plane = mesh.plane()
    client = two_of_web(mesh, plane)
    both_answer(client)
    load = Steady(client, "http://web/")
    try:
        time.sleep(0.5)
        mesh.apps[0].kill()  # its sidecar lives on, and answers 502
        time.sleep(0.7)
        mesh.sidecars[0].kill()  # nobody tells the control plane: it still lists both
        time.sleep(0.7)
    finally:
        load.stop()
    assert not load.failures, load.failures[:5]
    assert load.bodies["web-1"] and load.bodies["web-2"] > load.bodies["web-1"], load.bodies


def test_a_forward_leads_to_its_name_for_any_protocol(mesh):
    plane = mesh.plane()
    plane.service("web")
    mesh.served(plane, "web", "web-1")
    port = free_port()
    mesh.sidecar(plane, "client", "--forward", f"127.0.0.1:{port}=web.shop:80")
    direct = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    direct.request("GET", "/by-port", headers={"host": "whatever"})
    assert direct.getresponse().read().decode() == f"web-1 GET /by-port by {CALLER}\n"
    direct.close()
