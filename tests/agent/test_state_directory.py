"""The private directory of an agent: whole files, and nobody else's."""

import os

import pytest

from meshcore.agent.state_directory import StateDirectory, StateError


def test_a_file_is_written_whole_private_and_read_again(tmp_path):
    state = StateDirectory(tmp_path / "deep" / "state")
    state.write("key.pem", b"secret")
    assert state.read("key.pem") == b"secret"
    assert os.stat(state.place_of("key.pem")).st_mode & 0o777 == 0o600
    assert os.stat(state.path).st_mode & 0o777 == 0o700
    assert state.read("nothing") is None


def test_a_directory_that_others_can_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    os.chmod(tmp_path / "open", 0o755)
    with pytest.raises(StateError, match="0755 lets others in; chmod 700"):
        StateDirectory(tmp_path / "open")


def test_a_file_that_others_can_read_is_refused(tmp_path):
    state = StateDirectory(tmp_path / "state")
    state.write("key.pem", b"secret")
    os.chmod(state.place_of("key.pem"), 0o640)
    with pytest.raises(StateError, match="mode 0640"):
        state.read("key.pem")


def test_a_link_is_not_followed(tmp_path):
    state = StateDirectory(tmp_path / "state")
    (tmp_path / "elsewhere").write_bytes(b"x")
    state.place_of("answers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        state.read("answers")


def test_a_file_larger_than_allowed_is_refused(tmp_path):
    state = StateDirectory(tmp_path / "state")
    state.write("answers", b"x" * 1000)
    with pytest.raises(StateError, match="1000 bytes; expected at most 999"):
        state.read("answers", 999)


def test_what_a_crash_left_half_written_is_cleared_and_the_old_file_stays(tmp_path):
    state = StateDirectory(tmp_path / "state")
    state.write("answers", b"old")
    (state.path / ".answers.abcd.fresh").write_bytes(b"ha")
    assert StateDirectory(state.path).read("answers") == b"old"
    assert sorted(path.name for path in state.path.iterdir()) == ["answers"]
