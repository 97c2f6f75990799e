"""The control plane's manifests: fields that Kubernetes knows, rights that the code uses, commands that run as they stand."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import yaml
from aiohttp import web

from controlplane.cli import main, meshctl
from controlplane.discovery.configured import read
from controlplane.discovery.kubernetes import KubernetesSource
from controlplane.errors import StoreUnavailable
from controlplane.identity import Authority, KubernetesTokens, ServiceAccountToken, authority_files
from controlplane.identity.certificates import pem_of
from controlplane.manifests import installing, sidecar
from controlplane.manifests.injecting import inject
from controlplane.manifests.installing import Install, manifests
from controlplane.manifests.options import Options
from controlplane.manifests.pods import Resource
from controlplane.server import ControlPlane
from controlplane.settings import Settings
from controlplane.spiffe import SpiffeId
from meshcore.errors import ConfigError
from tests.controlplane.members import DOMAIN, certify, channel
from tests.namers.kubernetes_server import KubernetesServer

POD = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n"
ROLES = f"- {{identity: 'spiffe://{DOMAIN}/ns/ops/sa/alice', may: [view]}}\n"


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.new_root(DOMAIN, time.time())


def chosen(root: Authority, **changes) -> Install:
    return Install(trust_domain=DOMAIN, trust_bundle=pem_of([root.root]).decode(), image="meshcore:1", **changes)


def run(capsys, *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out, said.err


def of_kind(made: list[dict], kind: str) -> dict:
    (one,) = [one for one in made if one["kind"] == kind]
    return one


# Names, types and needs of fields as Kubernetes publishes them; tools/kubernetes_schema.py makes it.
SCHEMA = json.loads((Path(__file__).parent / "kubernetes_schema.json").read_text())["models"]
PLAIN = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}


def check_type(value, kind: str, where: str) -> None:
    """Every field known, of its type, and what must be there is there."""
    kind = kind.rstrip("!")
    if kind in PLAIN:
        assert isinstance(value, PLAIN[kind]) and (kind != "int" or not isinstance(value, bool)), where
    elif kind.startswith("list["):
        assert isinstance(value, list), where
        for number, one in enumerate(value):
            check_type(one, kind[5:-1], f"{where}[{number}]")
    elif kind.startswith("dict("):
        assert isinstance(value, dict), where
        for key, one in value.items():
            check_type(one, kind[5:-1].partition(", ")[2], f"{where}.{key}")
    else:
        fields = SCHEMA[kind]
        assert isinstance(value, dict) and value.keys() <= fields.keys(), f"{where}: {value.keys() - fields.keys()}"
        assert {name for name, one in fields.items() if one.endswith("!")} <= value.keys(), where
        for name, one in value.items():
            check_type(one, fields[name], f"{where}.{name}")


MANY = {
    "replicas": 3, "etcd": ("http://etcd:2379",), "roles": ROLES, "storage_class": "fast", "watch_namespace": "shop", "trust_in": ("shop",),
    "authority": (("root.key", b"x"),),
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, MANY])
def test_kubernetes_knows_every_field_and_its_type(root, changes):
    injected = inject(POD, Options(image="x", cpu_limit="1"), "x")[0]
    for one in (*manifests(chosen(root, **changes)), yaml.safe_load(injected)):
        _, _, version = one["apiVersion"].rpartition("/")
        check_type(json.loads(json.dumps(one)), f"{version.capitalize()}{one['kind']}", one["kind"])


def test_a_misspelt_field_would_be_found():
    for wrong in ({"hostnetwork": True}, {"containers": [{"image": "x"}]}, {"priority": "1"}):
        with pytest.raises(AssertionError):
            check_type({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}], **wrong}}, "V1Pod", "Pod")


async def test_rights_are_what_the_code_calls_and_no_more(root, tmp_path):
    asked: set[tuple[str, str, str]] = set()
    async with KubernetesServer() as server:
        for where in ("", ", namespace: shop"):
            (conf,) = read(f"- {{kind: kubernetes, url: '{server.url}'{where}}}", "sources")
            source = KubernetesSource(conf, DOMAIN)
            following = asyncio.create_task(source.follow(Heard()))
            async with asyncio.timeout(20):
                while len([one for one in server.asked if "watch=true" in one]) < 3:
                    await asyncio.sleep(0.01)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            for url in server.asked:
                path, _, query = url.partition("?")
                group = re.match(r"/apis/([^/]+)/", path)
                asked.add((group[1] if group else "", path.rpartition("/")[2], "watch" if "watch=true" in query else "list"))
            assert all(("/namespaces/shop/" in one) == bool(where) for one in server.asked)
            server.asked.clear()
    asked.add(await review_call(tmp_path))
    everywhere, followed = installing.rules()
    allowed = {(group, kind, verb) for rule in everywhere + followed for group in rule["apiGroups"] for kind in rule["resources"] for verb in rule["verbs"]}
    assert allowed == asked
    # In one namespace it may look into no other.
    narrow = manifests(chosen(root, watch_namespace="shop"))
    assert of_kind(narrow, "ClusterRole")["rules"] == everywhere and of_kind(narrow, "Role")["rules"] == followed
    assert of_kind(narrow, "Role")["metadata"]["namespace"] == "shop"
    for one in narrow:
        if one["kind"].endswith("Binding"):
            assert one["subjects"] == [{"kind": "ServiceAccount", "name": installing.NAME, "namespace": "meshcore"}]


class Heard:
    def __getattr__(self, name):
        return lambda *_: None


async def review_call(tmp_path) -> tuple[str, str, str]:
    found = []

    async def take(request: web.Request) -> web.Response:
        found.append((request.method, request.path))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (tmp_path / "token").write_text("x")
    tokens = KubernetesTokens(f"http://127.0.0.1:{runner.addresses[0][1]}", DOMAIN, own_token_file=tmp_path / "token")
    with pytest.raises(StoreUnavailable):
        await tokens.prove(ServiceAccountToken("a.b.c"), time.time())
    await runner.cleanup()
    ((method, path),) = found
    assert method == "POST"
    return path.split("/")[2], path.rpartition("/")[2], "create"


def containers(made: list[dict]) -> list[dict]:
    pod = of_kind(made, "StatefulSet")["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def test_nothing_runs_as_root_or_writes_outside_of_its_volumes(root):
    made = manifests(chosen(root))
    pod = of_kind(made, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and not of_kind(made, "ServiceAccount")["automountServiceAccountToken"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in containers(made):
        context = one["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] and context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
    assert of_kind(made, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    ports = [port["port"] for rule in of_kind(made, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    assert ports == [installing.PORT]
    # The sidecars' user is not intercepted, so nothing else may be it.
    assert Options().proxy_uid != installing.USER


async def test_what_it_runs_runs(root, tmp_path):
    """The commands of its containers, with folders of this machine in place of the volumes: and a token from its own audience."""
    secret = tmp_path / "secret"
    authority_files.save(tmp_path / "signing", "root", root.new_intermediate(time.time()))
    secret.mkdir(mode=0o777)
    for path in (tmp_path / "signing").iterdir():
        (secret / path.name).write_bytes(path.read_bytes())  # as a Secret is mounted: not only ours to read
        (secret / path.name).chmod(0o440)
    install = chosen(root, roles=ROLES)
    made = manifests(install)
    importing, serving = containers(made)
    configuration = of_kind([one for one in made if one["metadata"]["name"] == installing.NAME], "ConfigMap")["data"]
    (tmp_path / "etc").mkdir()
    for name, text in configuration.items():
        (tmp_path / "etc" / name).write_text(text)
    read(configuration["sources.yaml"], "sources.yaml")

    def here(words: list[str]) -> list[str]:
        places = {installing.DATA: tmp_path / "data", installing.CONFIGURATION: tmp_path / "etc", "/var/run/meshcore/authority": secret}
        for place, folder in places.items():
            words = [word.replace(place, str(folder)) for word in words]
        return words

    done = subprocess.run(
        [sys.executable, "-c", "from controlplane.cli import main; main()", *here(importing["args"])], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/authority/root.key").stat().st_mode & 0o077 == 0 and (tmp_path / "data").stat().st_mode & 0o077 == 0
    group = meshctl.get_command(None, "control-plane")
    flags = group.get_command(None, "run").make_context("run", here(serving["args"])[2:]).params
    assert flags.pop("kubernetes") == "in-cluster" and flags.pop("sources").endswith("sources.yaml")
    told = {**flags, "leaf_s": int(flags["leaf_s"]), "listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "drain_s": 0.1}
    async with ControlPlane(Settings(**told)) as plane:
        assert plane.bundle_pem.decode() == of_kind([one for one in made if one["metadata"]["name"] == "meshcore-trust"], "ConfigMap")["data"]["root.pem"]
        token = await plane.join_tokens.make(SpiffeId.of(DOMAIN, "shop", "web"), time.time(), by="test")
        async with channel(plane.address, plane.bundle_pem) as newcomer:
            assert (await certify(newcomer, token.text.encode())).leaf_certificate
        port = int(plane.pages.address.rpartition(":")[2])
        for path, code in (("/live", 0), ("/ready", 0), ("/nowhere", 1)):
            probe = sidecar.probe(port, path, period_s=1, failures=1)["exec"]["command"]
            asked = await asyncio.create_subprocess_exec(sys.executable, *probe[1:], stderr=subprocess.DEVNULL)
            assert await asked.wait() == code, path
    assert serving["env"][0]["value"] == f"unix:{installing.DATA}/admin.sock"


def test_members_find_what_was_installed(root):
    """The sidecar's defaults are the names and ports of the installation, and its token is for the audience that is asked for."""
    from controlplane.identity.kubernetes_tokens import AUDIENCE

    made = manifests(chosen(root, trust_in=("shop",)))
    service = of_kind(made, "Service")
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local:{service['spec']['ports'][0]['port']}"
    assert Options().control_plane == name and sidecar.AUDIENCE == AUDIENCE
    labels = of_kind(made, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (service["spec"]["selector"], of_kind(made, "StatefulSet")["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    roots = [one for one in made if one["kind"] == "ConfigMap" and one["metadata"]["name"] == Options().trust_config_map]
    assert [one["metadata"]["namespace"] for one in roots] == ["meshcore", "shop"]
    _, proxy = sidecar.containers(Resource("Deployment", "web", "", None, (), "deploy"), Options(image="x"))
    mounted = {one["name"]: one["mountPath"] for one in proxy["volumeMounts"]}
    paths = [item["path"] for source in sidecar.volumes(Options())[1]["projected"]["sources"] for item in (source.get("configMap", {}).get("items") or [source.get("serviceAccountToken")])]
    for flag, file in (("--trust-bundle", "root.pem"), ("--join-token", "token")):
        assert proxy["args"][proxy["args"].index(flag) + 1] == f"{mounted['meshcore-identity']}/{file}" and file in paths


def test_no_key_is_printed_unless_it_is_asked_for(capsys, tmp_path, root):
    authority_files.save(tmp_path / "signing", "root", root.new_intermediate(time.time()))
    (tmp_path / "roots.pem").write_bytes(pem_of([root.root]))
    words = ["install", "--trust-domain", DOMAIN, "--trust-bundle", str(tmp_path / "roots.pem"), "--trust-in", "shop"]
    out, _ = run(capsys, *words)
    assert "PRIVATE" not in out and "Secret" not in [one["kind"] for one in yaml.safe_load_all(out)]
    out, _ = run(capsys, *words, "--authority", str(tmp_path / "signing"))
    made = list(yaml.safe_load_all(out))
    secret = of_kind(made, "Secret")
    assert b"PRIVATE KEY" in base64.b64decode(secret["data"]["root.key"]) and set(secret["data"]) == {"root.key", "root.pem"}
    assert json.loads(run(capsys, *words, "--authority", str(tmp_path / "signing"), "--json")[0])["items"] == made
    again, _ = run(capsys, *words, "--authority", str(tmp_path / "signing"))
    assert again == out  # so that applying it once more changes nothing
    _, told = run(capsys, *words, "--authority", str(tmp_path), code=1)
    assert "no authority" in told
    _, told = run(capsys, *words, "--replicas", "2", code=78)
    assert "--etcd" in told
    _, told = run(capsys, *words[:3], "--trust-bundle", str(tmp_path / "signing/root.key"), code=78)
    assert "no key" in told
    assert "Shop" in run(capsys, *words, "--trust-in", "Shop", code=2)[1]


def test_what_could_not_run_is_refused(root):
    for changes, why in (({"trust_domain": "No One"}, "trust-domain"), ({"replicas": 2}, "etcd"), ({"trust_bundle": "x"}, "PEM")):
        with pytest.raises(ConfigError, match=why):
            manifests(msgspec.structs.replace(chosen(root), **changes))
