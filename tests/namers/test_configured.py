"""Namers of Linkerd's files: made as told, every problem at once with its place, keys without meaning are warnings."""

import pytest

from meshcore.errors import ConfigError
from meshcore.namers.configured import KINDS, namers_from
from meshcore.naming import read_path

from .worlds import becomes


def problems(configs):
    with pytest.raises(ConfigError) as caught:
        namers_from(configs, "linkerd.yaml")
    return caught.value.problems


async def test_each_kind_can_be_made_with_the_keys_of_its_reference(tmp_path):
    configs = [
        {"kind": "io.l5d.fs", "rootDir": str(tmp_path)},
        {"kind": "io.l5d.static", "names": {"/web": ["127.0.0.1 80", "127.0.0.2 80 * 0.5"]}},
        {"kind": "io.l5d.rewrite", "prefix": "/by-host", "pattern": "/{service}.example.com", "name": "/svc/{service}"},
        {"kind": "io.l5d.dnssrv", "experimental": True, "refreshIntervalSeconds": 5, "dnsHosts": ["10.0.0.53"]},
        {
            "kind": "io.l5d.consul",
            "host": "consul",
            "port": 8500,
            "includeTag": True,
            "useHealthCheck": True,
            "healthStatuses": ["passing", "warning"],
            "setHost": True,
            "consistencyMode": "stale",
            "weights": [{"tag": "primary", "weight": 100}],
        },
        {"kind": "io.l5d.serversets", "zkAddrs": [{"host": "127.0.0.1", "port": 2181}]},
        {"kind": "io.l5d.etcd", "pathPrefix": "/discovery"},
        {"kind": "io.l5d.k8s", "host": "localhost", "port": 8001, "labelSelector": "version"},
        {"kind": "io.l5d.k8s.ns", "namespace": "shop"},
    ]
    assert {config["kind"] for config in configs} == set(KINDS)
    warnings = []
    namers = namers_from(configs, "linkerd.yaml", warn=warnings.append)
    assert [str(namer.prefix) for namer in namers.asked][::-1] == [
        "/#/by-host" if config.get("prefix") else f"/#/{config['kind']}" for config in configs
    ]
    assert [problem.path for problem in warnings] == [("namers", 3, "experimental")]
    live = namers.replicas(read_path("/#/io.l5d.static/web"))
    state = await becomes(live, lambda state: hasattr(state, "addresses"))
    assert [address.weight for address in state.addresses] == [1.0, 0.5]
    await namers.close()


def test_all_problems_are_told_with_their_places():
    found = problems(
        [
            {"kind": "io.l5d.fs", "rootdir": "/x"},
            {"kind": "io.l5d.filesystem"},
            {"kind": "io.l5d.marathon"},
            {"kind": "io.l5d.serversets", "zkAddrs": [{"host": 7}]},
            {"kind": "io.l5d.static", "names": {"web": []}},
            {"kind": "io.l5d.consul", "consistencyMode": "eventual"},
            "io.l5d.fs",
            {"kind": "io.l5d.dnssrv", "transformers": [{"kind": "io.l5d.port", "port": 4141}]},
        ]
    )
    assert [problem.path[:2] for problem in found] == [("namers", index) for index in range(8)]
    assert found[7].path == ("namers", 7, "transformers")
    assert "rootDir" in found[0].hint and found[0].path == ("namers", 0, "rootdir")
    assert "io.l5d." in found[1].hint
    assert "not supported" in found[2].message


def test_every_problem_names_the_file():
    assert problems([{"kind": "io.l5d.fs"}])[0].source == "linkerd.yaml"
