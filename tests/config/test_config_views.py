"""What people see of a configuration: warnings, the difference of two, every value with its origin, the reference."""

import subprocess
import sys

import msgspec
import pytest
import yaml

from meshcore.config import Config, ConfigError, Leaf, check, diff, effective, load, loads, read, render
from meshcore.config.section import specs
from meshcore.config.types import SECTIONS

TEXT = """\
workers: 2
listeners:
- {name: web, address: ":8080"}
routes:
- name: users
  match: {prefix: /users}
  to: users
- {name: health, respond: {body: ok}}
clusters:
- name: users
  endpoints: ["127.0.0.1:1", {address: "127.0.0.1:2", weight: 3}]
"""


def test_nothing_is_doubtful_in_a_sound_file():
    assert check(loads(TEXT)) == []


WARNINGS = [
    (("to: users", "to: users\n  timeout: 5s\n  total_timeout: 2s"), "mesh.yaml:8:12: route 'users': timeout 5s is longer than total_timeout 2s"),
    (("to: users", "to: users\n  timeout: 100ms"), "timeout 100ms is shorter than the connect_timeout 1s of cluster 'users'"),
    (("clusters:", "- {name: again, match: {prefix: /users/}, to: users}\nclusters:"), "mesh.yaml:9:24: route 'again' is never reached; route 'users' above matches the same"),
    (("clusters:", "clusters:\n- name: spare\n  endpoints: ['a:1']"), "mesh.yaml:10:9: cluster 'spare' is used by no route"),
    (('endpoints: ["127.0.0.1:1", {address: "127.0.0.1:2", weight: 3}]', "endpoints: []"), "cluster 'users' has no endpoints; its routes are answered 503"),
    (('"127.0.0.1:1", {address: "127.0.0.1:2", weight: 3}', '{address: "127.0.0.1:2", weight: 0}'), "all endpoints have weight 0"),
    (('":8080"', '":8080", routes: [users]'), "route 'health' is on no listener"),
    (("workers: 2", "limits: {field_size: 64KiB}"), "limits: field_size is larger than head_size"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WARNINGS, ids=[said[:50] for _, said in WARNINGS])
def test_what_is_doubtful_is_a_warning_with_its_place(change, said):
    (warning,) = check(loads(TEXT.replace(*change), "mesh.yaml"))
    assert said in str(warning)
    assert warning.line > 0


def test_no_change_is_no_difference():
    same = diff(loads(TEXT), loads(TEXT))
    assert not same and str(same) == "no changes"
    assert (same.listeners_unchanged, same.routes_unchanged, same.clusters_unchanged) == (1, 2, 1)


def test_a_difference_names_what_changes():
    new = (
        TEXT.replace("workers: 2", "workers: 3\nlimits: {head_size: 8KiB}")
        .replace("/users}", "/v2}")
        .replace("{name: health,", "{name: live,")
        .replace('"127.0.0.1:1"', '"127.0.0.1:9"')
        .replace("weight: 3", "weight: 4")
        .replace("clusters:", "clusters:\n- name: more")
    )
    found = diff(loads(TEXT), loads(new))
    assert found
    assert (found.routes_added, found.routes_removed, found.routes_changed) == (("live",), ("health",), ("users",))
    assert (found.clusters_added, found.clusters_changed, found.clusters_unchanged) == (("more",), ("users",), 0)
    assert found.endpoints_added == {"users": ("127.0.0.1:9",)}
    assert found.endpoints_removed == {"users": ("127.0.0.1:1",)}
    assert found.endpoints_changed == {"users": ("127.0.0.1:2",)}
    assert found.settings_changed == {"workers": ("2", "3"), "limits.head_size": ("32KiB", "8KiB")}
    assert str(found).splitlines() == [
        "~ workers: 2 -> 3",
        "~ limits.head_size: 32KiB -> 8KiB",
        "+ route live",
        "- route health",
        "~ route users",
        "    match.prefix: /users -> /v2",
        "+ cluster more",
        "~ cluster users",
        "    + endpoint 127.0.0.1:9",
        "    - endpoint 127.0.0.1:1",
        "    ~ endpoint 127.0.0.1:2: weight",
        "unchanged: 1 listeners, 0 routes, 0 clusters",
    ]


def test_another_order_of_routes_is_a_difference():
    old = loads(TEXT)
    new = msgspec.structs.replace(old, routes=old.routes[::-1])
    assert diff(old, new).routes_reordered and diff(old, new)


def test_a_difference_can_be_sent_as_json():
    new = loads(TEXT.replace("workers: 2", "workers: 3"))
    assert msgspec.json.decode(msgspec.json.encode(diff(loads(TEXT), new)))["settings_changed"] == {
        "workers": ["2", "3"]
    }


def test_every_value_has_its_origin(tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text(TEXT)
    seen = effective(load(file))
    assert seen["workers"] == Leaf(2, f"{file}:1")
    assert seen["routes"][0]["match"]["prefix"] == Leaf("/users", f"{file}:6")
    assert seen["routes"][0]["timeout"] == Leaf("15s", "default")
    assert seen["clusters"][0]["endpoints"][1]["weight"] == Leaf(3, f"{file}:11")
    assert effective(load(file, overrides={"workers": 4}))["workers"] == Leaf(4, "flag")
    env = {"MESHCORE_WORKERS": "5"}
    assert effective(load(file, environ=env))["workers"] == Leaf(5, "env MESHCORE_WORKERS")
    assert effective(load(file, overrides={"workers": 4}, environ=env))["workers"] == Leaf(4, "flag")
    made = effective(Config(listeners=[{"address": ":80"}]))
    assert made["listeners"][0]["address"] == Leaf("0.0.0.0:80", "python")
    assert made["listeners"][0]["name"].origin == "default"


def test_a_wrong_environment_is_told():
    with pytest.raises(ConfigError, match="^environment: MESHCORE_WORKERS: expected a whole number or 'auto'"):
        loads(TEXT, environ={"MESHCORE_WORKERS": "many"})


def test_the_effective_view_shows_every_key_and_loads_again():
    secured = TEXT.replace('":8080"}', '":8080", tls: {certificates: [{cert: c.pem, key: k.pem}]}}') + "  tls: {sni: a.test}\n"
    secured += "  health_check: {type: tcp}\n  breaker: {success_rate: {least_percent: 90}}\n"
    secured = secured.replace("clusters:", "- {name: named, match: {host: named.test}, lookup: {by: authority}}\nclusters:", 1)
    config = loads(secured, "mesh.yaml")
    shown = render(config)
    assert "\nlimits:\n  head_size: 32KiB " in shown
    assert next(line for line in shown.splitlines() if "    timeout:" in line).split() == [
        "timeout:",
        "15s",
        "#",
        "default",
    ]
    for section in SECTIONS:
        for key in specs(section):
            if section.__name__ not in ("Split",):
                assert f"{key}:" in shown, f"{section.__name__}.{key}"
    assert loads(shown) == config


def test_a_config_survives_dict_and_yaml():
    config = loads(TEXT)
    assert Config.from_dict(config.to_dict()) == config
    assert loads(yaml.safe_dump(config.to_dict())) == config


def test_every_form_of_a_configuration_is_read(tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text(TEXT)
    config = loads(TEXT)
    assert read(config) is config
    assert read(TEXT) == read(file) == read(str(file)) == read(config.to_dict()) == config
    with pytest.raises(ConfigError, match="got the number 5"):
        read(5)


def test_defaults_are_valid_themselves():
    for section in SECTIONS:
        for spec in specs(section).values():
            if not spec.required and spec.default not in (None, (), {}, "") and not spec.nests:
                assert spec.kind.read(spec.default) == spec.default
                assert spec.kind.read(spec.kind.text(spec.default)) == spec.default


def test_every_key_is_documented_and_every_default_has_a_reason():
    for section in SECTIONS:
        assert section.__doc__
        for spec in specs(section).values():
            assert spec.doc.endswith("."), f"{section.__name__}.{spec.name}"
            if not spec.required and spec.default not in (None, (), {}) and not spec.nests and not spec.section:
                assert spec.why, f"{section.__name__}.{spec.name} has no reason"


def test_the_reference_page_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "-m", "meshcore.config.reference", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_configuration_needs_no_compiled_module():
    code = "import sys, meshcore.config; sys.exit('meshcore._fastpath' in sys.modules and meshcore.__dict__.get('Proxy') is None)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
