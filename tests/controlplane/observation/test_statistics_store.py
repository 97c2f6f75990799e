"""What is kept of the mesh's counts: for how long, in how much memory, and that sums are right. Under a clock of its own."""

import random

import pytest

from controlplane.observation.directory import Member
from controlplane.observation.statistics_store import Cell, StatisticsStore
from meshcore.api.statistics_frame import Row
from meshcore.stats import BUCKET_ENDS_NS, Histogram, bucket_index

WEB = Member("shop", "web", {"namespace": "shop", "deployment": "web"})
START_S = 1_000_020.0  # the first second of a minute


def latencies(*ms: float) -> bytes:
    counts: dict[int, int] = {}
    for one in ms:
        counts[bucket_index(int(one * 1e6))] = counts.get(bucket_index(int(one * 1e6)), 0) + 1
    return b"".join(index.to_bytes(2, "little") + n.to_bytes(4, "little") for index, n in sorted(counts.items()))


def row(requests=1, failures=0, *, route="r", secure=0, ms=(1.0,), direction="in", labels=None) -> Row:
    return Row(direction, route, "", labels or {}, requests, requests - failures, failures, secure, 0, latencies(*ms))


def everything(series):
    return "all"


def total(store, now_s, window_s):
    sums, span_s = store.sums(now_s, window_s, everything)
    return (sums["all"].requests if "all" in sums else 0), span_s


def test_a_window_counts_what_came_in_it():
    store = StatisticsStore(START_S)
    for second in range(120):
        store.add(START_S + second, WEB, [row(10)])
    assert total(store, START_S + 119, 59) == (600, 59)
    assert total(store, START_S + 119, 9)[0] == 100
    assert total(store, START_S + 119, 600) == (1200, 119), "it says how little it looked at"


def test_a_series_that_is_asked_about_is_counted_for_its_group():
    store = StatisticsStore(START_S)
    store.add(START_S, WEB, [row(3, 1, route="a", secure=2), row(5, route="b")])
    sums, _ = store.sums(START_S, 60, lambda series: series.key.route if series.key.route == "a" else None)
    assert set(sums) == {"a"}
    assert (sums["a"].requests, sums["a"].successes, sums["a"].failures, sums["a"].secure) == (3, 2, 1, 2)


def tcp_row(*, opened=0, is_open=0, out=0, back=0, direction="in") -> Row:
    return Row(direction, "r", "", {}, 0, 0, 0, tcp_opened=opened, tcp_open=is_open, bytes_out=out, bytes_in=back)


@pytest.mark.parametrize(("direction", "read", "written"), [("in", 10, 300), ("out", 300, 10)])
def test_octets_are_read_from_the_other_side_whichever_that_is(direction, read, written):
    store = StatisticsStore(START_S)
    for second in range(90):
        store.add(START_S + second, WEB, [tcp_row(opened=1, out=10, back=300, direction=direction)])
    for window_s, count in ((9, 10), (80_000, 90)):
        sums = store.sums(START_S + 89, window_s, everything)[0]["all"]
        assert (sums.tcp_opened, sums.tcp_read, sums.tcp_written) == (count, count * read, count * written)


def test_connections_are_open_until_their_proxy_says_otherwise_or_begins_anew():
    store = StatisticsStore(START_S)
    store.add(START_S, WEB, [tcp_row(opened=2, is_open=2)])
    store.add(START_S + 200, WEB, [row(1, route="other")])
    assert [(series.key.owner, count) for series, count in store.tcp_open()] == [("shop/web", 2)]
    store.add(START_S + 201, WEB, [tcp_row(is_open=1)])
    assert [count for _, count in store.tcp_open()] == [1]
    store.close_all("shop/users")
    assert [count for _, count in store.tcp_open()] == [1]
    store.close_all("shop/web")
    assert not list(store.tcp_open())
    store.add(START_S + 202, WEB, [tcp_row(opened=1, is_open=1)])
    store.add(START_S + 203, WEB, [tcp_row()])
    assert not list(store.tcp_open())


def test_two_frames_of_one_second_are_added():
    store = StatisticsStore(START_S)
    store.add(START_S + 0.1, WEB, [row(1, ms=(5.0,))])
    store.add(START_S + 0.9, WEB, [row(2, ms=(5.0, 50.0))])
    sums, _ = store.sums(START_S + 1, 60, everything)
    assert (sums["all"].requests, sums["all"].latency.count) == (3, 3)


def test_quantiles_are_those_of_all_samples():
    store = StatisticsStore(START_S)
    rng = random.Random(7)
    samples = [rng.lognormvariate(1, 1) for _ in range(5000)]
    for i in range(0, 5000, 50):
        store.add(START_S + i // 50, WEB, [row(50, ms=samples[i : i + 50])])
    latency = store.sums(START_S + 100, 600, everything)[0]["all"].latency
    samples.sort()
    assert latency.p50_ms == pytest.approx(samples[2500], rel=0.02)
    assert latency.p99_ms == pytest.approx(samples[4950], rel=0.03)


def test_after_ten_minutes_only_minutes_are_left_and_after_a_day_nothing():
    store = StatisticsStore(START_S)
    for second in range(60):
        store.add(START_S + second, WEB, [row(1, ms=(1.0 + second,))])
    for window_s, kept in ((600, 60), (3600, 60)):
        assert total(store, START_S + 61, window_s)[0] == kept
    assert total(store, START_S + 700, 600)[0] == 0
    assert total(store, START_S + 700, 3600)[0] == 60
    minute = store.sums(START_S + 700, 3600, everything)[0]["all"]
    assert minute.latency.count == 60 and minute.latency.p50_ms == pytest.approx(30.5, rel=0.05)
    assert total(store, START_S + 86_400 + 120, 86_400)[0] == 0
    assert (len(store), store.bytes) == (0, 0), "what was let go leaves nothing behind"


def test_an_hour_counts_the_seconds_whose_minute_is_not_over():
    store = StatisticsStore(START_S)
    for second in range(90):
        store.add(START_S + second, WEB, [row(1)])
    assert total(store, START_S + 89, 3600)[0] == 90


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_a_list_that_forgets_nothing(seed):
    rng = random.Random(seed)
    store, now, known = StatisticsStore(START_S), START_S, []
    for _ in range(300):
        now += rng.choice([0, 0.4, 1, 1, 1, 2, 30, 400])
        rows = [row(rng.randint(1, 9), route=rng.choice("abc"), ms=(rng.random() * 100,)) for _ in range(rng.randint(0, 3))]
        store.add(now, WEB, rows)
        known += [(int(now), one) for one in rows]
        window_s = rng.choice([1, 10, 60, 600])
        expected = sum(one.requests for second, one in known if second >= now - window_s)
        assert total(store, now, window_s)[0] == expected, f"seed {seed}"
        day = total(store, now, 86_400)[0]
        assert day == sum(one.requests for second, one in known if second // 60 * 60 >= now - 86_400), f"seed {seed}"


def test_memory_is_bounded_and_the_oldest_goes_first():
    store = StatisticsStore(START_S, max_bytes=200_000)
    many = [row(1, route=f"r{i}", ms=(1.0, 2.0, 3.0)) for i in range(50)]
    for second in range(400):
        store.add(START_S + second, WEB, many)
    assert store.bytes <= 200_000 + 50 * 300
    assert store.evicted_slots > 0
    assert total(store, START_S + 399, 2)[0] >= 100, "what came last is there"


def test_series_are_bounded_and_what_is_refused_is_counted():
    store = StatisticsStore(START_S, max_series=10)
    store.add(START_S, WEB, [row(1, route=f"r{i}") for i in range(15)])
    assert (len(store), store.refused_rows) == (10, 5)
    store.add(START_S + 86_400 * 2, WEB, [row(1, route="new")])
    assert len(store) == 1, "places come free again"


def test_a_clock_set_back_loses_nothing():
    store = StatisticsStore(START_S)
    store.add(START_S + 100, WEB, [row(1)])
    store.add(START_S + 50, WEB, [row(1)])
    assert total(store, START_S + 101, 60)[0] == 2


def test_changes_of_a_histogram_are_what_was_added():
    words = [0] * (3 + len(BUCKET_ENDS_NS))
    words[0], words[3 + 100], words[3 + 1791] = 5, 2, 3
    from array import array

    late = Histogram(array("Q", words))
    assert Histogram.of_changes([late.changes(Histogram())]).count == 5
    assert late.changes(late) == b""
    assert Histogram.of_changes([]).count == 0
    for wrong in (b"1", b"12345", b"\xff\xff\x01\x00\x00\x00"):
        with pytest.raises(ValueError):
            Histogram.of_changes([wrong])
    assert Cell(1, latency=b"ab").plus(Cell(2, latency=b"cd")).latency == b"abcd"
