"""Times of a route lookup: the size of the table must not show."""

import pytest

from meshcore._fastpath import RouteTableDoor

REPEAT = 1_000
EXACT_HOST, WILDCARD_HOST, ANY_HOST = 1, 2, 0
EXACT_PATH, PREFIX_PATH, ANY_PATH = 1, 2, 0
EVERY_METHOD = 0xFFFFFFFF


def table_of(size: int) -> RouteTableDoor:
    return RouteTableDoor(
        [
            (EXACT_HOST, b"service-%d.example" % n, PREFIX_PATH, b"/api/v%d/collection-%d" % (n % 7, n), EVERY_METHOD)
            for n in range(size)
        ]
    )


@pytest.mark.parametrize("size", [10, 10_000])
def test_last_route_of_a_table(timed, size):
    table = table_of(size)
    n = size - 1
    host, path = b"service-%d.example" % n, b"/api/v%d/collection-%d/item/17" % (n % 7, n)
    assert table.find(host, path) == n
    timed(lambda: table.find(host, path, 1, REPEAT), times=REPEAT)


@pytest.mark.parametrize("size", [10, 10_000])
def test_no_route_for_this_host(timed, size):
    table = table_of(size)
    timed(lambda: table.find(b"elsewhere.example", b"/api/v1/users", 1, REPEAT), times=REPEAT)


def test_only_route_catches_everything(timed):
    table = RouteTableDoor([(ANY_HOST, b"", ANY_PATH, b"", EVERY_METHOD)])
    assert table.find(b"a.example", b"/") == 0
    timed(lambda: table.find(b"a.example", b"/some/path", 1, REPEAT), times=REPEAT)


def test_wildcard_host_below_three_labels(timed):
    table = RouteTableDoor(
        [(WILDCARD_HOST, b"example", ANY_PATH, b"", EVERY_METHOD), (ANY_HOST, b"", ANY_PATH, b"", EVERY_METHOD)]
    )
    timed(lambda: table.find(b"a.b.c.example", b"/some/path", 1, REPEAT), times=REPEAT)
