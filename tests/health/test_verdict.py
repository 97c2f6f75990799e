"""When checks turn a verdict, against a slow oracle that looks at the whole past."""

from hypothesis import given
from hypothesis import strategies as st

from meshcore.health.verdict import Verdict

counts = st.integers(1, 6)


def oracle(results, rise, fall):
    """The verdict after each result: it turns when the last `rise` or `fall`, all counted since it last did, agree."""
    healthy, since, verdicts = True, 0, []
    for n in range(1, len(results) + 1):
        needed = fall if healthy else rise
        last = results[max(since, n - needed):n]
        if len(last) == needed and all(passed != healthy for passed in last):
            healthy, since = not healthy, n
        verdicts.append(healthy)
    return verdicts


@given(results=st.lists(st.booleans(), max_size=60), rise=counts, fall=counts)
def test_a_verdict_turns_after_so_many_in_a_row(results, rise, fall):
    verdict = Verdict()
    seen, before = [], True
    for passed in results:
        turned = verdict.count(passed, rise=rise, fall=fall)
        assert turned == (verdict.healthy != before)
        before = verdict.healthy
        seen.append(verdict.healthy)
    assert seen == oracle(results, rise, fall)
