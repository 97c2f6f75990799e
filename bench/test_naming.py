"""Times of naming: a bind through a table of a hundred entries costs microseconds, whichever entry it meets."""

import pytest

from meshcore.naming import Namers, binds, compile_dtab, read_dtab, read_path

ENTRIES = 100
FIXED = """
/srv => /#/io.l5d.fs ; /ph => /$/io.buoyant.rinet ; /svc => /ph/80 ; /svc => /$/io.buoyant.porthostPfx/ph ;
/http/1.1/* => /svc ; /fallback => /$/inet/127.1/80 ; /canary => 0.99*/srv/web & 0.01*/srv/web-v2 ;
"""
NAMERS = Namers({"/#/io.l5d.fs": binds("/#/io.l5d.fs", 1)})


def text_of(size: int) -> str:
    fixed = FIXED.count("=>")
    return FIXED + "".join(f"/svc/s{n} => /srv/s{n} | /fallback/s{n} ;\n" for n in range(size - fixed))


@pytest.mark.parametrize("size", [ENTRIES, 10_000])
@pytest.mark.parametrize(
    ("path", "bound"),
    [
        ("/svc/s50/v1/users", "/#/io.l5d.fs/s50"),
        ("/http/1.1/GET/s7", "/#/io.l5d.fs/s7"),
        ("/svc/example.com:8080", "/$/io.buoyant.rinet/8080/example.com"),
        ("/$/inet/10.0.0.1/80", "/$/inet/10.0.0.1/80"),
    ],
    ids=["alternation", "wildcard", "system_namers", "no_entry"],
)
def test_bind(timed, size, path, bound):
    table, name = compile_dtab(read_dtab(text_of(size))), read_path(path)
    assert str(table.bind(name, NAMERS).value.id) == bound
    timed(lambda: table.bind(name, NAMERS))


def test_bind_of_a_split(timed):
    table, name = compile_dtab(read_dtab(text_of(ENTRIES))), read_path("/canary/x")
    assert len(table.bind(name, NAMERS).branches) == 2
    timed(lambda: table.bind(name, NAMERS))


def test_read_a_table(timed):
    text = text_of(ENTRIES)
    assert len(read_dtab(text)) == ENTRIES
    timed(lambda: read_dtab(text), times=ENTRIES)


def test_compile_a_table(timed):
    table = read_dtab(text_of(ENTRIES))
    assert compile_dtab(table).bind(read_path("/fallback"))
    timed(lambda: compile_dtab(table), times=ENTRIES)
