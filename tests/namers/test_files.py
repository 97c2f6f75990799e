"""`io.l5d.fs` over a real folder: every change is seen without polling, a bad file never replaces a good answer."""

import os

import pytest

from meshcore.namers import Address, LiveNamers
from meshcore.namers.files import FilesNamer
from meshcore.namers.hosts_lines import read_lines
from meshcore.namers.source import SourceError
from meshcore.naming import Failed, Leaf, Neg, Pending, read_path

from .worlds import becomes, becomes_stale, ports

PREFIX = read_path("/#/io.l5d.fs")


def write(folder, name: str, text: str) -> None:
    """As everyone should: beside it, then renamed over it."""
    new = folder / f".{name.replace('/', '_')}.new"
    new.write_text(text)
    os.rename(new, folder / name)


@pytest.fixture
def namer(tmp_path):
    return FilesNamer(PREFIX, tmp_path)


async def test_a_file_is_a_name_and_its_lines_are_addresses(tmp_path, namer):
    write(tmp_path, "web", "# two of them\n127.0.0.1 8080\n::1 8081 * 0.5 # half\n")
    state = await namer.replicas(read_path("/web")).settled(20)
    assert state.addresses == (Address("127.0.0.1", 8080), Address("::1", 8081, 0.5))
    await namer.close()


async def test_every_change_is_seen_new_changed_and_gone(tmp_path, namer):
    live = namer.replicas(read_path("/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state == Neg())
    write(tmp_path, "web", "127.0.0.1 1\n")
    await becomes(live, lambda state: state != Neg() and ports(state) == [1])
    for port in range(2, 30):
        write(tmp_path, "web", f"127.0.0.1 {port}\n")
    await becomes(live, lambda state: ports(state) == [29])
    with open(tmp_path / "web", "a") as file:  # in place, too
        file.write("127.0.0.1 30\n")
    await becomes(live, lambda state: ports(state) == [29, 30])
    (tmp_path / "web").unlink()
    await becomes(live, lambda state: state == Neg())
    leave()
    await namer.close()


async def test_a_bad_line_keeps_the_last_good_answer_and_says_where_it_is(tmp_path, namer):
    write(tmp_path, "web", "127.0.0.1 1\n")
    live = namer.replicas(read_path("/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state != Pending())
    write(tmp_path, "web", "127.0.0.1 2\n127.0.0.1 eighty\n")
    await becomes_stale(live)
    assert ports(live.now) == [1] and "web:2" in live.stale.why
    write(tmp_path, "web", "127.0.0.1 3\n")
    await becomes(live, lambda state: ports(state) == [3])
    assert live.stale is None
    leave()
    await namer.close()


async def test_a_file_that_was_never_good_fails(tmp_path, namer):
    write(tmp_path, "web", "nonsense\n")
    state = await namer.replicas(read_path("/web")).settled(20)
    assert isinstance(state, Failed) and "nonsense" in state.message
    await namer.close()


async def test_folders_are_elements_and_what_follows_the_file_is_the_residual(tmp_path, namer):
    (tmp_path / "eu").mkdir()
    write(tmp_path, "eu/web", "127.0.0.1 1\n")
    live = namer.lookup(read_path("/eu/web/users/7"))
    answer = await becomes(live, lambda answer: isinstance(answer, Leaf))
    assert (str(answer.value.id), str(answer.value.residual)) == ("/#/io.l5d.fs/eu/web", "/users/7")
    await namer.close()


async def test_a_folder_made_later_is_watched_too(tmp_path, namer):
    live = namer.lookup(read_path("/us/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda answer: answer == Neg())
    (tmp_path / "us").mkdir()
    write(tmp_path, "us/web", "127.0.0.1 1\n")
    await becomes(live, lambda answer: isinstance(answer, Leaf))
    leave()
    await namer.close()


async def test_an_empty_file_is_no_name_so_that_an_alternation_goes_on(tmp_path, namer):
    write(tmp_path, "web", "# nobody\n")
    assert await namer.lookup(read_path("/web")).settled(20) == Neg()
    await namer.close()


async def test_a_folder_that_vanishes_keeps_the_last_good_answer(tmp_path):
    root = tmp_path / "names"
    root.mkdir()
    write(root, "web", "127.0.0.1 1\n")
    namer = FilesNamer(PREFIX, root)
    live = namer.replicas(read_path("/web"))
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda state: state != Pending())
    os.rename(root, tmp_path / "away")
    await becomes_stale(live)
    assert ports(live.now) == [1]
    os.rename(tmp_path / "away", root)
    write(root, "web", "127.0.0.1 2\n")
    await becomes(live, lambda state: ports(state) == [2])
    leave()
    await namer.close()


async def test_no_name_leads_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_text("127.0.0.1 1\n")
    (tmp_path / "names").mkdir()
    namer = FilesNamer(PREFIX, tmp_path / "names")
    for name in ("/../secret", "/%2e%2e/secret", "/\\x2e\\x2e\\x2fsecret", "/\\x2e\\x2e/secret"):
        assert await namer.lookup(read_path(name)).settled(20) == Neg()
    await LiveNamers([namer]).close()


@pytest.mark.parametrize("line", ["a", "a 0", "a 65536", "a 1 *", "a 1 * -1", "a 1 b", "a b 1", f"a 1 * {'9' * 400}"])
def test_what_is_no_address_is_refused_with_its_place(line):
    with pytest.raises(SourceError, match=":2: got"):
        read_lines(f"127.0.0.1 1\n{line}\n", "web")
