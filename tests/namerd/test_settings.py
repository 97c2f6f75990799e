"""namerd.yaml: files that work with namerd work here, keys without meaning are warnings, mistakes are told with their place."""

import pytest

from controlplane.namerd.settings import Etcd, HttpController, Mesh, Sqlite, ZooKeeper, read_settings
from controlplane.namerd.server import Namerd
from meshcore.errors import ConfigError

PUBLISHED = """
admin:
  ip: 127.0.0.1
  port: 0
  shutdownGraceMs: 1000
  workerThreads: 2
storage:
  kind: io.l5d.inMemory
  namespaces:
    default: |
      # comments may stand anywhere
      /srv => /#/io.l5d.fs ;
      /svc => /srv ;
namers:
- kind: io.l5d.fs
  rootDir: {folder}
- kind: io.l5d.rewrite
  prefix: /portNsSvcToK8s
  pattern: "/{{port}}/{{ns}}/{{svc}}"
  name: "/k8s/{{ns}}/{{port}}/{{svc}}"
interfaces:
- kind: io.l5d.thriftNameInterpreter
  ip: 127.0.0.1
  port: 4100
- kind: io.l5d.mesh
  port: 0
- kind: io.l5d.httpController
  port: 0
telemetry:
- kind: io.l5d.prometheus
"""


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read_settings(text)
    return [str(problem) for problem in caught.value.problems]


async def test_a_file_of_the_published_shape_runs_and_what_has_no_meaning_is_told(tmp_path):
    settings = read_settings(PUBLISHED.format(folder=tmp_path))
    assert [(one.line, one.message.split("'")[1]) for one in settings.warnings] == [
        (29, "telemetry"),
        (6, "workerThreads"),
        (22, "io.l5d.thriftNameInterpreter"),
    ]
    assert [type(one) for one in settings.interfaces] == [Mesh, HttpController]
    async with Namerd(settings) as namerd:
        assert set(namerd.addresses) == {"http", "mesh", "admin"}
        assert namerd.book.names.now == ("default",)


@pytest.mark.parametrize(
    ("storage", "kind"),
    [
        ("kind: io.l5d.sqlite\n  path: /tmp/x.db", Sqlite),
        ("kind: io.l5d.etcd\n  experimental: true\n  host: etcd\n  port: 2379\n  pathPrefix: /namerd/dtabs", Etcd),
        (
            "kind: io.l5d.zk\n  zkAddrs:\n  - host: zk\n    port: 2181\n  pathPrefix: /dtabs\n  sessionTimeoutMs: 10000\n"
            "  authInfo:\n    scheme: digest\n    auth: a:b\n  acls:\n  - scheme: auth\n    id: ''\n    perms: crwda",
            ZooKeeper,
        ),
    ],
)
def test_each_kind_of_storage_is_read(storage, kind):
    settings = read_settings(f"storage:\n  {storage}\ninterfaces:\n- kind: io.l5d.mesh\n")
    assert isinstance(settings.storage, kind)
    settings.storage.tables()


def test_every_mistake_is_told_with_its_place_and_the_way_out():
    told = problems(
        "storage:\n  kind: io.l5d.inmemory\ninterfacs: []\nnamers:\n- kind: io.l5d.fs\n  rootDirs: x\nadmin:\n  port: many\n"
    )
    assert any("namerd.yaml:3:1" in one and "did you mean 'interfaces'" in one for one in told)
    assert any("namerd.yaml:2:9" in one and "io.l5d.inMemory" in one for one in told)
    assert any("namerd.yaml:6:3" in one and "rootDir" in one for one in told)
    assert any("namerd.yaml:8:9" in one for one in told)
    assert any("at least one" in one for one in told)


def test_a_bad_table_in_the_file_is_a_mistake_of_the_file():
    told = problems("storage:\n  kind: io.l5d.inMemory\n  namespaces:\n    default: nonsense\ninterfaces:\n- kind: io.l5d.mesh\n")
    assert any("namerd.yaml:4:14" in one and "expected but 'n' found" in one for one in told)


def test_a_listener_that_is_read_only_is_told():
    settings = read_settings("storage:\n  kind: io.l5d.sqlite\ninterfaces:\n- kind: io.l5d.httpController\n  ip: 0.0.0.0\n")
    assert any("read-only" in one.message for one in settings.warnings)
