"""The long run in short: two dozen rotations within a second or two, while clients come, resume, stay."""

from tests.soak.certificate_rotation import rotate


def test_rotation_under_load_loses_no_request(only_meshcore, tmp_path):
    load = rotate(tmp_path, seconds=1.5, every_s=0.05)
    assert load.failures == []
    assert load.served > 100 and load.connections > 8 and load.resumed > 0, load
