"""The last good answers on disk."""

import pytest

from meshcore.agent.answers import Answer, Endpoint, Endpoints
from meshcore.agent.saved_answers import FILE, FORM, MAX_AGE_S, MAX_NAMES, SavedAnswers
from meshcore.agent.state_directory import StateDirectory, StateError

ME = "spiffe://mesh.test/ns/shop/sa/web"


def answer(port: int) -> Answer:
    return Answer(Endpoints((Endpoint(host="192.0.2.1", port=port, identity=ME, labels={"zone": "a"}),)), digest=b"d")


@pytest.fixture
def state(tmp_path):
    return StateDirectory(tmp_path / "state")


def test_answers_come_back_as_they_were(state):
    saved = {"web.shop:80": answer(1), "db.shop:5432": answer(2)}
    assert SavedAnswers(state, ME).save(saved)
    assert SavedAnswers(state, ME).load() == saved


def test_the_same_again_is_not_written_again(state):
    keeper = SavedAnswers(state, ME)
    assert keeper.save({"web.shop:80": answer(1)})
    assert not keeper.save({"web.shop:80": answer(1)})
    assert keeper.save({"web.shop:80": answer(2)})


def test_no_file_is_no_answers(state):
    assert SavedAnswers(state, ME).load() == {}


@pytest.mark.parametrize("position", [0, len(FORM), len(FORM) + 31, len(FORM) + 40, -1])
def test_a_flipped_bit_anywhere_is_found(state, position):
    SavedAnswers(state, ME).save({"web.shop:80": answer(1)})
    data = bytearray(state.read(FILE))
    data[position] ^= 1
    state.write(FILE, data)
    with pytest.raises(StateError, match="passed over"):
        SavedAnswers(state, ME).load()


@pytest.mark.parametrize("kept", [0, 5, len(FORM), len(FORM) + 32, 100])
def test_a_file_cut_short_is_found(state, kept):
    SavedAnswers(state, ME).save({"web.shop:80": answer(1)})
    state.write(FILE, state.read(FILE)[:kept])
    with pytest.raises(StateError, match="passed over"):
        SavedAnswers(state, ME).load()


def test_answers_for_another_identity_are_not_used(state):
    SavedAnswers(state, ME).save({"web.shop:80": answer(1)})
    with pytest.raises(StateError, match="of spiffe://mesh.test/ns/shop/sa/web, not of"):
        SavedAnswers(state, "spiffe://other.test/ns/shop/sa/web").load()


def test_answers_older_than_a_week_are_not_used(state):
    SavedAnswers(state, ME, clock=lambda: 1_000.0).save({"web.shop:80": answer(1)})
    assert SavedAnswers(state, ME, clock=lambda: 1_000.0 + MAX_AGE_S - 1).load()
    with pytest.raises(StateError, match="7 days old"):
        SavedAnswers(state, ME, clock=lambda: 1_001.0 + MAX_AGE_S).load()


def test_of_too_many_names_the_ones_used_last_are_kept(state):
    SavedAnswers(state, ME).save({f"n{number}:80": answer(1) for number in range(MAX_NAMES + 5)})
    found = SavedAnswers(state, ME).load()
    assert len(found) == MAX_NAMES and "n4:80" not in found and f"n{MAX_NAMES + 4}:80" in found
