"""Sidecars put into manifests and taken out: what is changed is right, and all else keeps its bytes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.cli import main
from controlplane.manifests import sidecar
from controlplane.manifests.injecting import inject, uninject
from controlplane.manifests.options import FIELDS, INJECTED, Options, flag_of
from controlplane.manifests.pods import KINDS, Resource
from meshcore.cli import meshproxy
from meshcore.cli.intercept import rules_of
from meshcore.cli.sidecar import agent_settings, sidecar_settings
from meshcore.agent.sidecar import sidecar_config
from meshcore.errors import ConfigError

MANIFESTS = Path(__file__).parent / "manifests"
OPTIONS = Options(image="registry.example.org/meshcore:1")
FILES = sorted(MANIFESTS.iterdir())
INJECTED_IN = {
    "anchors.yaml": ["Deployment api.v2"], "cronjob.yaml": ["CronJob backup"], "daemonset.yaml": ["DaemonSet fluent-bit"],
    "deployment.yaml": ["Deployment web"], "flow.yaml": ["Deployment tiny", "Deployment mixed"], "job.yaml": ["Job migrate"],
    "list.yaml": ["Deployment cart", "Pod inner-pod"], "operator.yaml": [], "pod.yaml": ["Pod debug"],
    "replicaset.json": ["ReplicaSet front"], "replicationcontroller.yaml": ["ReplicationController legacy"],
    "statefulset.yaml": ["StatefulSet postgres"],
}  # fmt: skip


def read(path: Path) -> str:
    return path.read_bytes().decode()


def loaded(text: str):
    """As programs read it: JSON as JSON, where its tabs would be no YAML."""
    return [json.loads(text)] if text[:1] == "{" and "\t" in text else list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def pods_in(value) -> list[dict]:
    """What has metadata and spec of each pod, as a reader who knows nothing of places finds it."""
    if not isinstance(value, dict):
        return []
    if value.get("kind") == "List":
        return [pod for one in value["items"] for pod in pods_in(one)]
    groups, path, _ = KINDS.get(value.get("kind"), ((), (), ""))
    if value.get("apiVersion", "").rpartition("/")[0] not in groups:
        return []
    for step in path:
        value = value[step]
    return [value]


def variants(text: str) -> list[str]:
    """The same with other line ends, without the last one, with a BOM's worth of nothing before it."""
    lines = text.replace("\r\n", "\n")
    return [text, lines, lines.replace("\n", "\r\n"), lines.removesuffix("\n"), lines + "\n\n"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_was_put_in_is_there_and_what_is_taken_out_leaves_the_bytes_that_were(path):
    for text in variants(read(path)):
        fresh, reports = inject(text, OPTIONS, path.name)
        assert [f"{one.kind} {one.name}" for one in reports if one.done == "injected"] == INJECTED_IN[path.name]
        assert all(one.why for one in reports if one.done == "skipped")
        assert uninject(fresh, path.name)[0] == text
        assert uninject(text, path.name)[0] == text
        again, reports = inject(fresh, OPTIONS, path.name)
        assert again == fresh and not [one for one in reports if one.done == "injected"]
        found = 0
        for before, after in zip(loaded(text), loaded(fresh), strict=True):
            for was, now in zip(pods_in(before), pods_in(after), strict=True):
                if was != now:
                    check_pod(was, now)
                    found += 1
        assert found == len(INJECTED_IN[path.name])


def check_pod(was: dict, now: dict) -> None:
    """Nothing of the pod is lost or changed, and the sidecar is whole."""
    added = now["spec"]["initContainers"][:2]
    assert [one["name"] for one in added] == ["meshcore-intercept", "meshcore-proxy"]
    assert now["spec"]["initContainers"][2:] == (was["spec"].get("initContainers") or [])
    assert [one["name"] for one in now["spec"]["volumes"][:2]] == ["meshcore-state", "meshcore-identity"]
    assert now["spec"]["volumes"][2:] == (was["spec"].get("volumes") or [])
    assert now["metadata"]["labels"]["meshcore.io/proxy"] == "sidecar"
    for key in ("labels", "annotations"):
        old = (was.get("metadata") or {}).get(key) or {}
        ours = {"meshcore.io/proxy", INJECTED}
        assert {name: text for name, text in now["metadata"][key].items() if name not in ours} == old
    rest = {key: value for key, value in was["spec"].items() if key not in ("initContainers", "volumes")}
    assert {key: value for key, value in now["spec"].items() if key not in ("initContainers", "volumes")} == rest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_lines_that_were_there_stay_as_they_are(path):
    """So a diff shows what was put in, and nothing else: every line of block YAML comes through, in order."""
    if path.name in ("flow.yaml", "cronjob.yaml", "pod.yaml", "replicaset.json", "anchors.yaml", "list.yaml"):
        return  # entries in flow style share their line
    rest = iter(inject(read(path), OPTIONS, path.name)[0].splitlines(keepends=True))
    for line in read(path).splitlines(keepends=True):
        if "{app: postgres}" not in line:
            assert line in rest, line


def test_a_document_that_is_rewritten_by_a_cluster_loses_its_sidecar_all_the_same():
    """kubectl gives back what it was given with its own keys, order and quotes."""
    for path in FILES:
        before = loaded(read(path))
        after = loaded(inject(read(path), OPTIONS, path.name)[0])
        text = yaml.safe_dump_all(after, sort_keys=True, default_flow_style=False)
        for was, now in zip(before, loaded(uninject(text, path.name)[0]), strict=True):
            for old, new in zip(pods_in(was), pods_in(now), strict=True):
                assert "meshcore-" not in json.dumps(new) and new["spec"]["containers"] == old["spec"]["containers"]
                labels = [(pod.get("metadata") or {}).get("labels") or {} for pod in (new, old)]
                assert labels[0] == labels[1]


def flags_of(container: dict) -> list[str]:
    values = {"POD_NAMESPACE": "shop", "POD_NAME": "web-7d9f", "POD_ACCOUNT": "web", "NODE_NAME": "node-1"}
    named = {one["name"] for one in container["env"]}
    words = []
    for word in container["args"]:
        for name, value in values.items():
            if f"$({name})" in word:
                assert name in named, word
                word = word.replace(f"$({name})", value)
        assert "$(" not in word
        words.append(word)
    return words


@pytest.mark.parametrize("word", sorted({word for _, _, word in KINDS.values()}))
@pytest.mark.parametrize("name", ["web", "api.v2", ""])
def test_the_command_lines_are_ones_that_meshproxy_takes(tmp_path, word, name):
    """By the parser of the program itself, and up to the configuration that its engine would run."""
    every = Options(
        image="x", skip_inbound_ports="22,9000-9010", skip_outbound_ports="25", skip_subnets="10.9.0.0/16,fd09::/16",
        opaque_ports="3306,5432", require_mtls=True, workers=2, drain="90s", inbound_port=5143, proxy_uid=3000,
    )  # fmt: skip
    for options in (OPTIONS, every):
        rules, proxy = sidecar.containers(Resource("Deployment", name, "", None, (), word), options)
        command = meshproxy.get_command(None, "sidecar")
        context = command.make_context("sidecar", flags_of(proxy)[1:])
        given_flags = {key: value for key, value in context.params.items() if key not in ("command", "verbose")}
        settings = sidecar_settings(**given_flags)
        found = agent_settings(settings, **given_flags)
        assert (found.namespace, found.account) == ("shop", "web")
        assert found.workload == (name.replace(".", "-") or "web-7d9f")
        sidecar_config(settings, tmp_path)
        without = sidecar_config(msgspec.structs.replace(settings, has_ipv6=False), tmp_path)
        assert not [one for one in without.listeners if "[" in one.address]
        assert settings.interception == "redirect" and settings.inbound == f":{options.inbound_port}"
        assert settings.opaque_ports == ((3306, 5432) if options is every else None)
        command = meshproxy.get_command(None, "intercept")
        context = command.make_context("intercept", list(rules["args"][1:]))
        assert context.params.pop("action") == "apply" and context.params.pop("tool") == "nft" and not context.params.pop("as_json")
        made = rules_of(context.params.pop("family"), **context.params)
        assert (made.proxy_uid, made.inbound_port) == (options.proxy_uid, options.inbound_port)
        assert proxy["securityContext"]["runAsUser"] == options.proxy_uid


def test_nothing_has_a_right_that_it_does_not_need():
    rules, proxy = sidecar.containers(Resource("Deployment", "web", "", None, (), "deploy"), OPTIONS)
    for one in (rules, proxy):
        context = one["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"] and not context["privileged"]
        assert context["capabilities"]["drop"] == ["ALL"] and context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["resources"]["limits"]["memory"]
    assert proxy["securityContext"]["runAsNonRoot"] and "add" not in proxy["securityContext"]["capabilities"]
    assert rules["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]


def test_annotations_of_a_pod_count_more_than_flags_and_misspelt_ones_are_mistakes():
    text = read(MANIFESTS / "daemonset.yaml")
    (pod,) = pods_in(loaded(inject(text, OPTIONS, "x")[0])[1])
    rules, proxy = pod["spec"]["initContainers"]
    assert rules["args"][rules["args"].index("--skip-outbound-ports") + 1] == "9200,24224"
    assert "--require-mtls" in proxy["args"] and proxy["resources"]["limits"]["cpu"] == "500m"
    for wrong, told in (
        ("cpu-limit: lots", "a quantity"), ("cpu-limits: 1", "unknown"), ("proxy-uid: '0'", "as root"), ("inbound-port: '4140'", "both"),
        ("workers: x", "a number"), ("require-mtls: maybe", "true or false"), ("skip-outbound-ports: 9000-80", "ports"), ("proxy_uid: '7'", "unknown"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            inject(text.replace('meshcore.io/require-mtls: "true"', "x: y").replace("cpu-limit: 500m", wrong), OPTIONS, "x")
    disabled = text.replace("cpu-limit: 500m", "inject: disabled")
    assert inject(disabled, OPTIONS, "x")[0] == disabled


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata: {labels: {a: b}}
    spec:
      POD
"""


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        ("{hostNetwork: true, containers: [{name: a}]}", "hostNetwork"),
        ("{containers: [{name: a}, {name: istio-proxy}]}", "another mesh"),
        ("{containers: [{name: meshcore-proxy}]}", "already"),
        ("{containers: []}", "no containers"),
        ("{os: {name: windows}, containers: [{name: a}]}", "Windows"),
    ],
)
def test_pods_that_get_none_are_told_with_the_reason(pod, why):
    text = DEPLOYMENT.replace("POD", pod)
    fresh, (report,) = inject(text, OPTIONS, "x")
    assert fresh == text and report.done == "skipped" and why in report.why


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        ("{securityContext: {runAsUser: 2102}, containers: [{name: a}]}", "the proxy's own"),
        ("{containers: [{name: a, securityContext: {runAsUser: 2102}}]}", "the proxy's own"),
        ("&pod {containers: [{name: a}]}\nstatus: *pod", "alias"),
        ("{containers: [{name: a}], volumes: &v [{name: x}], y: *v}", "alias"),
        ("{containers: [{name: a}], volumes: x}", "no sequence"),
        ("? containers\n      : [{name: a}]", "line of its own"),
        ("{containers: [{name: a}], containers: []}", "twice"),
        ("{containers: [{name: a}", "not YAML"),
        ("{containers: *nothing}", "alias|not YAML"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused_with_its_place(pod, why):
    with pytest.raises(ConfigError, match=why) as error:
        inject(DEPLOYMENT.replace("POD", pod), OPTIONS, "some.yaml")
    assert "some.yaml" in str(error.value)


def test_a_bomb_of_aliases_costs_nothing():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 30))
    text = "kind: Bomb\napiVersion: v1\nl0: &l0 x\n" + levels
    assert inject(text, OPTIONS, "x")[0] == text
    with pytest.raises(ConfigError, match="deeper"):
        inject("a: " + "[" * 2_000 + "]" * 2_000, OPTIONS, "x")


# -- any form ------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "app", "x y", "ü", "true", "1", "", "*", "&", ": ", "# no", "- ", "'", '"', "null", "\u2028", "😀"])
MAPS = st.dictionaries(st.sampled_from(["app", "tier", "note", "x/y"]), WORDS, max_size=3)
CONTAINERS = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["a", "b"]), "args": st.lists(WORDS, max_size=3)}), min_size=1, max_size=3)


@st.composite
def pod_texts(draw):
    """Deployments with any part missing, null, empty or there, in any order, written by PyYAML in any of its styles."""
    metadata = draw(st.one_of(st.none(), st.fixed_dictionaries({}, optional={"labels": st.one_of(st.none(), MAPS), "annotations": st.one_of(st.none(), MAPS), "name": WORDS})))
    lists = st.one_of(st.none(), st.just([]), st.just([{"name": "one", "emptyDir": {}}, {"name": "two"}]))
    spec = draw(st.fixed_dictionaries({"containers": CONTAINERS}, optional={"volumes": lists, "initContainers": lists, "x": WORDS}))
    template = {"spec": {key: spec[key] for key in draw(st.permutations(sorted(spec)))}}
    if draw(st.booleans()):
        template = {"metadata": metadata, **template} if draw(st.booleans()) else {**template, "metadata": metadata}
    one = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}}
    if draw(st.booleans()):
        one = {"apiVersion": "v1", "kind": "List", "items": [one, {"kind": "Pod", "apiVersion": "v1", "spec": spec}]}
    one = json.loads(json.dumps(one))  # no part stands there twice, which PyYAML would write as an alias
    if draw(st.integers(0, 4)) == 0:
        return json.dumps(one, indent=draw(st.sampled_from([None, 1, "\t"])), ensure_ascii=draw(st.booleans()))
    style = draw(st.sampled_from([False, None, True]))
    text = yaml.safe_dump(one, sort_keys=False, default_flow_style=style, indent=draw(st.integers(2, 5)), allow_unicode=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("\n", " # end\n") if "|" not in text and ">" not in text and "'" not in text and '"' not in text else text
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@settings(max_examples=80, deadline=None)
@given(pod_texts())
def test_any_form_comes_back_as_it_was(text):
    fresh, reports = inject(text, OPTIONS, "x")
    assert [one.done for one in reports].count("injected") == len(reports)
    assert uninject(fresh, "x")[0] == text
    assert inject(fresh, OPTIONS, "x")[0] == fresh
    before = json.loads(text) if text[0] == "{" and "\t" in text else yaml.safe_load(text)
    after = json.loads(fresh) if text[0] == "{" and "\t" in text else yaml.safe_load(fresh)
    for was, now in zip(pods_in(before), pods_in(after), strict=True):
        check_pod(was, now)
    if text.startswith('{"'):
        json.loads(fresh)  # JSON stays JSON


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab:-{}[]&*!|>'\"%#\n\r\t ,?~0\u2028"), max_size=60))
def test_any_text_passes_or_is_refused(text):
    try:
        assert inject(text, OPTIONS, "x")[0] == text
        assert uninject(text, "x")[0] == text
    except ConfigError:
        pass


# -- the commands ---------------------------------------------------------------------------------------------------------


class Output(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def octets(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


def meshctl(monkeypatch, *words: str, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    out, told = Output(), Output()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    monkeypatch.undo()
    assert ended.value.code == code, told.octets().decode()
    return out.octets(), told.octets().decode()


def test_files_folders_and_standard_input_are_taken_and_told_about(monkeypatch, tmp_path):
    octets = (MANIFESTS / "deployment.yaml").read_bytes()
    fresh, told = meshctl(monkeypatch, "inject", "-", stdin=octets)
    assert "deployment shop/web injected\n" in told and "service shop/web-svc skipped: a Service has no pods" in told
    assert meshctl(monkeypatch, "uninject", "-", stdin=fresh)[0] == octets
    bom = b"\xef\xbb\xbf" + octets
    assert meshctl(monkeypatch, "uninject", "-", stdin=meshctl(monkeypatch, "inject", "-", stdin=bom)[0])[0] == bom
    _, told = meshctl(monkeypatch, "inject", "--json", str(MANIFESTS))
    found = json.loads(told)["resources"]
    assert sum(one["done"] == "injected" for one in found) == sum(map(len, INJECTED_IN.values()))
    both, _ = meshctl(monkeypatch, "inject", str(MANIFESTS / "job.yaml"), str(MANIFESTS / "cronjob.yaml"))
    assert [one["kind"] for one in yaml.safe_load_all(both)] == ["Job", "CronJob"]
    fresh, _ = meshctl(monkeypatch, "inject", "--proxy-uid", "77", "--cpu-limit", "2", str(MANIFESTS / "job.yaml"))
    assert b"77" in fresh and b'cpu: "2"' in fresh


def test_nothing_is_written_when_one_file_is_wrong(monkeypatch, tmp_path):
    (tmp_path / "a.yaml").write_bytes((MANIFESTS / "job.yaml").read_bytes())
    (tmp_path / "b.yaml").write_bytes(b"a: [\n")
    out, told = meshctl(monkeypatch, "inject", str(tmp_path), code=78)
    assert out == b"" and "b.yaml:2" in told
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    out, told = meshctl(monkeypatch, "inject", str(tmp_path), code=78)
    assert out == b"" and "b.yaml:1" in told and "UTF-8" in told
    assert "proxy-uid" in meshctl(monkeypatch, "inject", "--proxy-uid", "0", "-", code=78)[1]


def test_each_flag_has_a_name_and_a_help():
    from controlplane.cli.inject import HELP, inject as command

    assert set(HELP) == set(FIELDS)
    assert {flag_of(name) for name in FIELDS} <= {option.removeprefix("--") for one in command.params for option in one.opts}
