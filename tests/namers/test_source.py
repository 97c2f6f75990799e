"""Sources: the last good answer stays while the world is away, and is told to be stale; what nobody follows is let go."""

import asyncio

from meshcore.namers import SourceError
from meshcore.naming import Failed, Neg, Pending, read_path

from .worlds import MemorySource, becomes, becomes_stale, ports, replicas, turns

WEB = read_path("/web")


async def test_the_last_good_answer_stays_while_the_source_is_away_and_is_told_to_be_stale():
    source = MemorySource({"/web": replicas(1)})
    cell = source.cell(WEB)
    leave = cell.subscribe(lambda: None)
    await becomes(cell, lambda state: state == replicas(1))
    assert cell.stale is None
    await source.break_with(SourceError("unplugged"))
    await becomes_stale(cell)
    assert cell.now == replicas(1) and cell.stale.why == "unplugged"
    health = source.health()
    assert (health.keys, health.stale_keys) == (1, 1) and health.failures > 0
    await source.put("/web", replicas(2))
    await source.break_with(None)
    await becomes(cell, lambda state: state == replicas(2))
    assert cell.stale is None and source.health().stale_keys == 0
    leave()
    await source.close()


async def test_a_failure_before_any_answer_is_told_and_later_mended():
    source = MemorySource()
    source.trouble = OSError("nobody there")
    cell = source.cell(WEB)
    leave = cell.subscribe(lambda: None)
    assert cell.now == Pending()
    await becomes(cell, lambda state: state == Failed("nobody there"))
    await source.put("/web", replicas(1))
    await source.break_with(None)
    await becomes(cell, lambda state: state == replicas(1))
    leave()
    await source.close()


async def test_a_programming_error_in_a_watcher_is_a_failure_and_not_silence():
    source = MemorySource()
    source.trouble = ZeroDivisionError("oops")
    cell = source.cell(WEB)
    state = await becomes(cell, lambda state: isinstance(state, Failed))
    assert "ZeroDivisionError" in state.message
    await source.close()


async def test_all_who_ask_for_one_key_share_one_watcher():
    source = MemorySource({"/web": replicas(1)})
    leaves = [source.cell(WEB).subscribe(lambda: None) for _ in range(50)]
    await becomes(source.cell(WEB), lambda state: state == replicas(1))
    assert source.followed == [WEB]
    for leave in leaves:
        leave()
    await source.close()


async def test_a_key_that_nobody_follows_is_let_go_after_a_while_and_may_be_followed_again():
    source = MemorySource({"/web": replicas(1)}, linger_s=0.01)
    cell = source.cell(WEB)
    await becomes(cell, lambda state: state == replicas(1))
    while source.cells:
        await asyncio.sleep(0.005)
    assert cell.now == Pending()
    await source.put("/web", replicas(2))
    await becomes(cell, lambda state: ports(state) == [2] if state != Pending() else False)
    assert source.followed == [WEB, WEB]
    await source.close()


async def test_who_comes_back_while_it_lingers_finds_it_as_it_was():
    source = MemorySource({"/web": replicas(1)}, linger_s=30)
    await becomes(source.cell(WEB), lambda state: state == replicas(1))
    assert source.cell(WEB).now == replicas(1)
    await becomes(source.cell(WEB), lambda state: state == replicas(1))
    assert source.followed == [WEB]
    await source.close()


async def test_more_names_than_allowed_fail_and_the_others_go_on():
    source = MemorySource({"/a": replicas(1), "/b": replicas(2)}, most_keys=1)
    first, second = source.cell(read_path("/a")), source.cell(read_path("/b"))
    leave = first.subscribe(lambda: None)
    await becomes(first, lambda state: state == replicas(1))
    state = await becomes(second, lambda state: isinstance(state, Failed))
    assert "more than 1 names" in state.message
    await source.put("/a", replicas(3))
    await becomes(first, lambda state: state == replicas(3))
    leave()
    await source.close()


async def test_closing_ends_every_watcher_and_keeps_what_was_known():
    source = MemorySource({"/web": replicas(1)})
    cell = source.cell(WEB)
    leave = cell.subscribe(lambda: None)
    await becomes(cell, lambda state: state == replicas(1))
    await source.close()
    assert cell.now == replicas(1) and cell.stale is not None
    leave()
    await turns()
    assert not [task for task in asyncio.all_tasks() if "memory" in task.get_name()]


async def test_what_does_not_exist_is_an_answer():
    source = MemorySource()
    assert await becomes(source.cell(WEB), lambda state: state != Pending()) == Neg()
    await source.close()
