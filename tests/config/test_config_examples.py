"""A configuration as people write it goes all the way to a plan."""

from meshcore.config import Config, Listener, Route, check, compile_plan, diff, for_targets, loads

TEXT = """
listeners:
- address: ":8080"
routes:
- name: users
  match: {prefix: /users}
  to: users
clusters:
- name: users
  endpoints: ["127.0.0.1:9000", {address: "unix:/run/users.sock", weight: 2}]
"""


def test_a_small_file_becomes_a_plan():
    plan = compile_plan(loads(TEXT))
    (cluster,) = plan["clusters"]
    assert [(e["address"], e["sockaddr"], e["weight"]) for e in cluster["endpoints"]] == [
        ("127.0.0.1:9000", ("127.0.0.1", 9000), 1),
        ("unix:/run/users.sock", "/run/users.sock", 2),
    ]
    (route,) = plan["routes"]
    assert route["match"] == {"host": "", "host_kind": 0, "path": "/users", "path_kind": 2, "methods": [], "headers": []}
    assert route["targets"] == [("users", 1)]
    assert route["response_timeout_ns"] == 15_000_000_000
    (listener,) = plan["listeners"]
    assert (listener["address"], listener["routes"]) == ("0.0.0.0:8080", ["users"])


def test_structs_and_text_say_the_same():
    made = Config(
        listeners=[Listener(address=":8080")],
        routes=[Route(name="users", match={"prefix": "/users"}, to="users")],
        clusters=[{"name": "users", "endpoints": ["127.0.0.1:9000", {"address": "unix:/run/users.sock", "weight": 2}]}],
    )
    assert made == loads(TEXT)
    assert not diff(made, loads(TEXT))
    assert check(made) == []
    assert Config.from_dict(made.to_dict()) == made


def test_no_file_is_needed_for_one_listener_and_some_targets():
    config = for_targets(":8080", ["127.0.0.1:9000,127.0.0.1:9001", ":9002"], timeout="3s", workers=2)
    assert [e.address for e in config.clusters[0].endpoints] == ["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002"]
    assert (config.workers, str(config.routes[0].timeout)) == (2, "3s")
