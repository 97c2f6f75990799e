"""Route table: the most specific listed route that takes the method, found without looking at the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import RouteTableDoor

ANY, EXACT = 0, 1
WILDCARD = PREFIX = 2
GET, POST = 1, 2


def host_rank(kind, pattern, host):
    """None = does not match; else higher is more specific."""
    host = host.removesuffix(b".")
    if kind == ANY:
        return 0
    if kind == EXACT:
        return 10_000 if host == pattern else None
    suffix = pattern.removeprefix(b"*")
    return len(suffix.split(b".")) if host.endswith(suffix) and len(host) > len(suffix) else None


def path_rank(kind, pattern, path):
    if kind == EXACT:
        return 10_000 if path == pattern else None
    prefix = pattern.rstrip(b"/") if kind == PREFIX else b""
    if not prefix:
        return 0
    return prefix.count(b"/") if path == prefix or path.startswith(prefix + b"/") else None


def slow_find(matches, host, path, method_bit):
    """Every route is looked at, the best rank wins, the first listed among equals."""
    best = None
    for order, (host_kind, host_pattern, path_kind, path_pattern, methods) in enumerate(matches):
        by_host, by_path = host_rank(host_kind, host_pattern, host), path_rank(path_kind, path_pattern, path)
        if by_host is None or by_path is None or methods and not methods & method_bit:
            continue
        rank = (by_host, by_path, -order)
        if best is None or rank > best[0]:
            best = (rank, order)
    return None if best is None else best[1]


labels = st.sampled_from([b"a", b"b", b"test", b"x" * 8, b"x" * 9])
hosts = st.lists(labels, min_size=1, max_size=4).map(b".".join)
segments = st.sampled_from([b"", b"a", b"b", b"users", b"usersx", b"12345678", b"123456789", b"\xc3\xa9"])
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: b"/" + b"/".join(parts))
host_matches = st.one_of(st.just((ANY, b"")), st.tuples(st.just(EXACT), hosts),
                         st.tuples(st.just(WILDCARD), hosts.map(b"*.".__add__)))
path_matches = st.one_of(st.just((ANY, b"")), st.tuples(st.just(EXACT), paths), st.tuples(st.just(PREFIX), paths))
tables = st.lists(st.tuples(host_matches, path_matches, st.integers(0, 7)).map(
    lambda match: (*match[0], *match[1], match[2])), max_size=25)
requests = st.tuples(st.one_of(hosts, hosts.map(lambda host: host + b"."), st.just(b"")),
                     st.one_of(paths, st.sampled_from([b"*", b"", b"a.test:443"])), st.sampled_from([1, 2, 4, 1 << 31]))


@given(tables, st.lists(requests, min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_the_table_finds_what_looking_at_every_route_finds(matches, asked, seed):
    table = RouteTableDoor(matches, seed)
    for host, path, method_bit in asked:
        assert table.find(host, path, method_bit) == slow_find(matches, host, path, method_bit), (host, path, method_bit)


@given(tables, st.data())
def test_every_route_is_found_by_its_own_pattern_unless_an_earlier_one_shadows_it(matches, data):
    table = RouteTableDoor(matches)
    for host_kind, host, path_kind, path, methods in matches:
        host = host.replace(b"*", b"new") if host_kind else b"new.test"
        path = path if path_kind else b"/new"
        method_bit = data.draw(st.sampled_from([bit for bit in (1, 2, 4) if not methods or methods & bit]))
        assert table.find(host, path, method_bit) == slow_find(matches, host, path, method_bit)


def test_an_empty_table_finds_nothing():
    assert RouteTableDoor([]).find(b"a.test", b"/") is None


@pytest.mark.parametrize("host, path", [(b"a.test", b"/"), (b"", b"/x/y"), (b"[::1]", b"*"), (b"10.0.0.1", b"")])
def test_a_route_without_conditions_takes_everything(host, path):
    assert RouteTableDoor([(ANY, b"", ANY, b"", 0)]).find(host, path) == 0


@pytest.mark.parametrize("prefix", [b"/users", b"/users/"])
@pytest.mark.parametrize("path, matches", [
    (b"/users", True), (b"/users/", True), (b"/users/7", True), (b"/users//", True),
    (b"/usersx", False), (b"/user", False), (b"/", False), (b"/Users", False), (b"//users", False), (b"/%75sers", False),
])
def test_a_prefix_matches_whole_segments(prefix, path, matches):
    assert RouteTableDoor([(ANY, b"", PREFIX, prefix, 0)]).find(b"a.test", path) == (0 if matches else None)


@pytest.mark.parametrize("path", [b"/", b"/x", b"/x/y/z", b"*", b""])
def test_the_prefix_slash_matches_every_path(path):
    assert RouteTableDoor([(ANY, b"", PREFIX, b"/", 0)]).find(b"a.test", path) == 0


def test_an_exact_path_wins_over_a_prefix_and_a_longer_prefix_over_a_shorter():
    table = RouteTableDoor([(ANY, b"", PREFIX, b"/", 0), (ANY, b"", PREFIX, b"/a", 0), (ANY, b"", PREFIX, b"/a/b", 0),
                            (ANY, b"", EXACT, b"/a/b", 0)])
    found = [table.find(b"", path) for path in (b"/a/b", b"/a/b/", b"/a/b/c", b"/a/c", b"/c")]
    assert found == [3, 2, 2, 1, 0]


def test_an_exact_path_with_a_trailing_slash_is_another_path():
    table = RouteTableDoor([(ANY, b"", EXACT, b"/a/", 0)])
    assert [table.find(b"", path) for path in (b"/a/", b"/a", b"/a//")] == [0, None, None]


def test_the_host_counts_before_the_path():
    table = RouteTableDoor([(ANY, b"", EXACT, b"/a", 0), (WILDCARD, b"*.test", PREFIX, b"/a", 0),
                            (WILDCARD, b"*.a.test", PREFIX, b"/", 0), (EXACT, b"b.a.test", ANY, b"", 0)])
    found = [table.find(host, b"/a") for host in (b"b.a.test", b"c.a.test", b"d.c.a.test", b"c.test", b"test")]
    assert found == [3, 2, 2, 1, 0]


def test_a_wildcard_does_not_match_its_own_suffix():
    assert RouteTableDoor([(WILDCARD, b"*.a.test", ANY, b"", 0)]).find(b"a.test", b"/") is None


def test_a_host_that_has_no_route_for_the_path_falls_back_to_the_next_less_specific():
    table = RouteTableDoor([(EXACT, b"b.a.test", EXACT, b"/1", 0), (WILDCARD, b"*.a.test", EXACT, b"/2", 0),
                            (WILDCARD, b"*.test", EXACT, b"/3", 0), (ANY, b"", EXACT, b"/4", 0)])
    assert [table.find(b"b.a.test", b"/%d" % i) for i in (1, 2, 3, 4, 5)] == [0, 1, 2, 3, None]


def test_a_route_for_another_method_does_not_hide_a_less_specific_one():
    table = RouteTableDoor([(EXACT, b"a.test", EXACT, b"/x", POST), (EXACT, b"a.test", PREFIX, b"/x", POST),
                            (ANY, b"", PREFIX, b"/", GET)])
    assert [table.find(b"a.test", b"/x", bit) for bit in (GET, POST, 4)] == [2, 0, None]


def test_among_equals_the_first_listed_wins():
    table = RouteTableDoor([(ANY, b"", EXACT, b"/x", POST), (ANY, b"", EXACT, b"/x", 0), (ANY, b"", EXACT, b"/x", GET)])
    assert [table.find(b"", b"/x", bit) for bit in (GET, POST)] == [1, 0]


def test_any_path_and_the_prefix_slash_are_the_same_place():
    assert RouteTableDoor([(ANY, b"", ANY, b"", 0), (ANY, b"", PREFIX, b"/", 0)]).find(b"", b"/x") == 0
    assert RouteTableDoor([(ANY, b"", PREFIX, b"/", 0), (ANY, b"", ANY, b"", 0)]).find(b"", b"/x") == 0


def test_a_trailing_dot_of_the_host_is_not_part_of_the_name():
    table = RouteTableDoor([(EXACT, b"a.test", ANY, b"", 0), (EXACT, b"b.test.", ANY, b"", 0)])
    assert table.find(b"a.test.", b"/") == 0
    assert table.find(b"b.test", b"/") == 1


def test_an_address_is_a_host_like_any_other():
    table = RouteTableDoor([(EXACT, b"[::1]", ANY, b"", 0), (EXACT, b"10.0.0.1", ANY, b"", 0)])
    assert [table.find(host, b"/") for host in (b"[::1]", b"10.0.0.1", b"10.0.0.2")] == [0, 1, None]


def test_ten_thousand_hosts_and_paths_are_all_found():
    matches = [(EXACT, b"h%d.example.test" % i, PREFIX, b"/api/v%d/users" % (i % 7), 0) for i in range(5000)]
    matches += [(ANY, b"", EXACT, b"/item/%d" % i, 0) for i in range(5000)]
    table = RouteTableDoor(matches, seed=9)
    for i in range(5000):
        assert table.find(b"h%d.example.test" % i, b"/api/v%d/users/7" % (i % 7)) == i
        assert table.find(b"h%d.example.test" % i, b"/item/%d" % i) == 5000 + i
        assert table.find(b"h%d.example.test" % i, b"/api/v9/users") is None


@pytest.mark.parametrize("path, expected", [
    (b"/" * 8000, None), (b"/x" * 4000, None), (b"/a" * 4000, 0), (b"/" + b"a" * 8000, 1), (b"/" + b"a" * 8001, None),
])
def test_long_hostile_paths_are_answered(path, expected):
    table = RouteTableDoor([(ANY, b"", PREFIX, b"/a/a", 0), (ANY, b"", PREFIX, b"/" + b"a" * 8000, 0)])
    assert table.find(b"." * 255, path) == expected


def test_a_pattern_without_leading_slash_matches_nothing():
    table = RouteTableDoor([(ANY, b"", EXACT, b"*", 0), (ANY, b"", PREFIX, b"users", 0)])
    assert [table.find(b"", path) for path in (b"*", b"/", b"users", b"/sers", b"/users")] == [None] * 5
