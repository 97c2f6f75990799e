"""The section `health_check`: what it accepts, what it becomes, how mistakes in it are told."""

import sys

import pytest

from meshcore import ConfigError, Proxy
from meshcore.config import Config, compile_plan, diff
from meshcore.health import targets_of
from tests.scenario import proxies


def config(check, **cluster):
    return Config.from_dict(proxies.config(to=cluster.pop("to", "127.0.0.1:80"), cluster={"health_check": check, **cluster}))


def target(check, **cluster):
    made = config(check, **cluster)
    return targets_of(made, compile_plan(made, resolve=lambda name: ["127.0.0.7", "::7"]))[0]


def test_nothing_is_asked_by_default():
    plain = Config.from_dict(proxies.config(to="127.0.0.1:80"))
    assert plain.clusters[0].health_check is None
    assert targets_of(plain, compile_plan(plain)) == []


def test_an_empty_section_asks_by_http_with_the_usual_numbers():
    one = target({})
    check = one.check
    assert (check.type, check.path, str(check.interval), str(check.timeout), check.rise, check.fall) == ("http", "/", "5s", "1s", 2, 3)
    assert (one.place, one.authority, one.prefix) == (("127.0.0.1", 80), "127.0.0.1:80", b"")


@pytest.mark.parametrize(("expect", "passing", "failing"), [
    ("200-399", (200, 301, 399), (199, 400, 503)),
    (204, (204,), (200, 205)),
    (["200", "300-302", 404], (200, 300, 302, 404), (201, 299, 303, 403)),
])
def test_statuses_are_numbers_ranges_or_lists_of_them(expect, passing, failing):
    one = target({"expect": expect})
    assert [status for status in (*passing, *failing) if one.accepts(status)] == list(passing)


@pytest.mark.parametrize(("check", "words"), [
    ({"expect": "2xx"}, "no status and no range"),
    ({"expect": "399-200"}, "not within 200-599"),
    ({"expect": 100}, "not within 200-599"),
    ({"expect": []}, "0 entries"),
    ({"expect": [200, True]}, "got the boolean true"),
    ({"type": "tcp", "path": "/live"}, "a tcp check has none"),
    ({"type": "http", "service": "a.B"}, "a http check has none"),
    ({"type": "grpc", "expect": 200}, "a grpc check has none"),
    ({"fall": 0}, "out of range"),
    ({"type": "ping"}, "unknown value 'ping'"),
    ({"intervall": "1s"}, "did you mean 'interval'?"),
    ({"path": "/a b"}, "U+0020"),
    ({"host": "a.test\r\nx: y"}, "not a host"),
])
def test_mistakes_are_told(check, words):
    with pytest.raises(ConfigError) as told:
        config(check)
    assert words in str(told.value)


@pytest.mark.parametrize(("check", "cluster", "words"), [
    ({"type": "tcp"}, {"to": [], "type": "original_destination"}, "nobody to ask"),
    ({"port": 81}, {"to": "unix:/run/a.sock"}, "has no port"),
    ({"type": "grpc"}, {"proxy_protocol": "v2"}, "PROXY header"),
])
def test_clusters_that_cannot_be_asked_so_are_refused(check, cluster, words):
    with pytest.raises(ConfigError) as told:
        config(check, **cluster)
    assert words in str(told.value)


def test_every_address_of_a_name_is_asked_at_the_port_that_was_named():
    made = config({"port": 81, "host": "a.test"}, to="a.test:80")
    asked = targets_of(made, compile_plan(made, resolve=lambda name: ["127.0.0.7", "::7"]))
    assert [(one.address, one.place, one.authority) for one in asked] == [
        ("127.0.0.7:80", ("127.0.0.7", 81), "a.test"), ("[::7]:80", ("::7", 81), "a.test")]


def test_a_change_of_a_check_is_shown():
    shown = str(diff(config({}), config({"fall": 5, "expect": [200, 204]})))
    assert "health_check.fall: 3 -> 5" in shown and "health_check.expect: 200-399 -> ['200', '204']" in shown
    assert "health_check: none ->" in str(diff(Config.from_dict(proxies.config(to="127.0.0.1:80")), config({})))


def test_a_grpc_check_without_grpcio_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"meshcore\[mesh\]"):
        Proxy(config({"type": "grpc"})).start()
