"""How long clients of one destination are waited for: against a dict that forgets nothing but what shared a place."""

from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import SilencesDoor

PLACES, LONGEST = 512, 6
keys = st.builds(lambda high, low: high << 9 | low, st.integers(0, 2**55 - 1), st.integers(0, 3))
steps = st.lists(st.tuples(st.sampled_from(["note", "broken"]), keys), max_size=200)


@given(steps, keys)
def test_each_key_has_its_own_streak_until_another_takes_its_place(done, asked):
    door, places = SilencesDoor(), {}
    for verb, key in done:
        getattr(door, verb)(key)
        holder, streak = places.get(key % PLACES, (None, 0))
        streak = streak if holder == key >> 8 else 0
        if verb == "note":
            places[key % PLACES] = (key >> 8, min(streak + 1, LONGEST))
        elif streak:
            places[key % PLACES] = (key >> 8, streak // 2)
    holder, streak = places.get(asked % PLACES, (None, 0))
    assert door.streak(asked) == (streak if holder == asked >> 8 else 0)


def test_a_new_memory_knows_nobody():
    assert SilencesDoor().streak(0) == SilencesDoor().streak(2**64 - 1) == 0


def test_a_streak_ends_at_one_sixty_fourth_and_is_halved_by_who_speaks():
    door = SilencesDoor()
    for _ in range(100):
        door.note(7 << 9)
    assert door.streak(7 << 9) == LONGEST
    door.broken(7 << 9)
    assert door.streak(7 << 9) == 3
