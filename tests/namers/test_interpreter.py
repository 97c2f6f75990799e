"""Interpreters: a bound tree follows its table, its namers and its addresses; in order, without a gap."""

import random

import pytest

from meshcore.namers import Address, Cell, LiveNamers, LocalInterpreter, Replicas, SourceError
from meshcore.namers.statics import StaticNamer
from meshcore.naming import (
    EMPTY_DTAB,
    Alt,
    Bound,
    Failed,
    Leaf,
    NameTree,
    Namers,
    Neg,
    Pending,
    Union,
    Weighted,
    bind,
    read_dtab,
    read_path,
    show_tree,
)

from .worlds import MemorySource, becomes, becomes_stale, memory_namer, ports, replicas, turns

NAME = read_path("/svc/web")


def shown(resolution) -> str:
    return show_tree(resolution.tree) if isinstance(resolution.tree, NameTree) else repr(resolution.tree)


async def test_a_name_follows_its_table_and_its_addresses():
    source = MemorySource({"/v1": replicas(1), "/v2": replicas(2)})
    dtab = Cell(read_dtab("/svc/web => /#/memory/v1"))
    interpreter = LocalInterpreter(LiveNamers([memory_namer(source)]), dtab)
    live = interpreter.follow(NAME)
    first = await becomes(live, lambda now: not now.is_pending)
    assert shown(first) == "/#/memory/v1" and ports(first.replicas[read_path("/#/memory/v1")]) == [1]
    leave = live.subscribe(lambda: None)
    await source.put("/v1", replicas(1, 11))
    await becomes(live, lambda now: ports(now.replicas[read_path("/#/memory/v1")]) == [1, 11])
    dtab.set(read_dtab("/svc/web => 9*/#/memory/v1 & 1*/#/memory/v2"))
    await becomes(live, lambda now: shown(now) == "9.00*/#/memory/v1 & /#/memory/v2" and not now.is_pending)
    leave()
    await interpreter.close()


async def test_a_namer_whose_set_becomes_empty_passes_on_to_the_alternative():
    source = MemorySource({"/v1": replicas(1), "/v2": replicas(2)})
    interpreter = LocalInterpreter(
        LiveNamers([memory_namer(source)]), read_dtab("/svc/web => /#/memory/v1 | /#/memory/v2")
    )
    live = interpreter.follow(NAME)
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda now: shown(now) == "/#/memory/v1")
    await source.put("/v1", Neg())
    await becomes(live, lambda now: shown(now) == "/#/memory/v2")
    await source.put("/v1", Replicas())
    await turns()
    assert shown(live.now) == "/#/memory/v2"
    await source.put("/v1", replicas(3))
    await becomes(live, lambda now: shown(now) == "/#/memory/v1")
    leave()
    await interpreter.close()


async def test_a_source_that_goes_away_changes_nothing_that_is_bound():
    source = MemorySource({"/v1": replicas(1)})
    interpreter = LocalInterpreter(LiveNamers([memory_namer(source)]), read_dtab("/svc/web => /#/memory/v1"))
    live = interpreter.follow(NAME)
    leave = live.subscribe(lambda: None)
    await becomes(live, lambda now: not now.is_pending)
    await source.break_with(SourceError("away"))
    await becomes_stale(live)
    assert shown(live.now) == "/#/memory/v1" and live.stale.why == "away"
    leave()
    await interpreter.close()


async def test_a_table_of_one_request_overrides_the_base():
    source = MemorySource({"/v1": replicas(1), "/v2": replicas(2)})
    interpreter = LocalInterpreter(LiveNamers([memory_namer(source)]), read_dtab("/svc/web => /#/memory/v1"))
    live = interpreter.follow(NAME, read_dtab("/svc/web => /#/memory/v2"))
    await becomes(live, lambda now: shown(now) == "/#/memory/v2")
    await becomes(interpreter.follow(NAME), lambda now: shown(now) == "/#/memory/v1")
    await interpreter.close()


async def test_who_follows_the_same_name_shares_one_bind():
    interpreter = LocalInterpreter(LiveNamers(), read_dtab("/svc => /$/inet/127.0.0.1"))
    one, two = interpreter.follow(read_path("/svc/80")), interpreter.follow(read_path("/svc/80"))
    assert one is two
    assert (await one.settled(5)).replicas == {read_path("/$/inet/127.0.0.1/80"): replicas(80)}
    await interpreter.close()


async def test_namers_that_share_a_prefix_are_asked_in_order_and_only_a_neg_passes_on():
    upper, lower = MemorySource({"/a": replicas(1)}), MemorySource({"/a": replicas(2), "/b": replicas(3)})
    namers = LiveNamers.from_configuration([memory_namer(lower), memory_namer(upper)])  # the lowest is asked first
    interpreter = LocalInterpreter(namers, EMPTY_DTAB)
    first = await becomes(interpreter.follow(read_path("/#/memory/a")), lambda now: not now.is_pending)
    assert ports(first.replicas[read_path("/#/memory/a")]) == [1]
    second = await becomes(interpreter.follow(read_path("/#/memory/b")), lambda now: not now.is_pending)
    assert ports(second.replicas[read_path("/#/memory/b")]) == [3]
    upper.trouble = SourceError("unplugged")
    live = interpreter.follow(read_path("/#/memory/c"))
    assert (await becomes(live, lambda now: now.tree != Pending())).tree == Failed("unplugged")
    await interpreter.close()


async def test_an_id_is_resolved_without_its_transformers_and_an_unknown_one_says_so():
    interpreter = LocalInterpreter(LiveNamers([memory_namer(MemorySource({"/a": replicas(1)}))]), EMPTY_DTAB)
    live = interpreter.replicas(read_path("/%/io.l5d.port/4141/#/memory/a"))
    assert ports(await becomes(live, lambda state: state != Pending())) == [1]
    assert isinstance(interpreter.replicas(read_path("/#/other/a")).now, Failed)
    await interpreter.close()


async def test_hosts_that_are_names_become_addresses():
    name = read_path("/web")
    namers = LiveNamers([StaticNamer(read_path("/#/static"), {name: Replicas((Address("localhost", 80, 0.5),))})])
    state = await namers.replicas(read_path("/#/static/web")).settled(20)
    assert Address("127.0.0.1", 80, 0.5) in state.addresses
    await namers.close()


async def test_alternatives_are_kept_in_order_of_preference_where_that_is_wanted():
    source = MemorySource({"/a": replicas(1), "/b": replicas(2), "/c": replicas(3)})
    dtab = read_dtab("/svc/web => /#/memory/a | /#/memory/none | 3*/#/memory/b & 1*/#/memory/c | ! | /#/memory/c")
    interpreter = LocalInterpreter(LiveNamers([memory_namer(source)]), dtab, keeps_alternatives=True)
    live = interpreter.follow(NAME)
    leave = live.subscribe(lambda: None)
    found = await becomes(live, lambda now: shown(now).count("memory") == 3)
    assert shown(found) == "/#/memory/a | 3.00*/#/memory/b & /#/memory/c"
    await source.put("/a", Neg())
    await becomes(live, lambda now: shown(now) == "3.00*/#/memory/b & /#/memory/c")
    leave()
    await interpreter.close()


async def test_an_explanation_waits_for_namers_that_have_not_answered():
    source = MemorySource({"/b": replicas(2)})
    interpreter = LocalInterpreter(
        LiveNamers([memory_namer(source)]), read_dtab("/svc/web => /#/memory/a | /#/memory/b")
    )
    told = await interpreter.explain(NAME, timeout_s=20)
    assert [child.kind for child in told.children] == ["neg", "leaf"]
    await interpreter.close()


def first_choices(tree):
    """The same tree as Linkerd would have it."""
    if isinstance(tree, Alt):
        return first_choices(tree.trees[0])
    if isinstance(tree, Union):
        return Union(tuple(Weighted(one.weight, first_choices(one.tree)) for one in tree.branches))
    return tree


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_happens_the_end_is_what_one_bind_of_the_end_gives(seed):
    """Random tables and answers, changed in a random order: the live tree ends as a pure bind of the last answers."""
    rng = random.Random(seed)
    names = ["a", "b", "c"]

    def table() -> str:
        choices = [f"/#/memory/{name}" for name in names] + ["/x/a", "/x/b", "!", "~", "$"]
        tree = lambda: rng.choice(["{} | {}", "{} & {}", "{}", "2*{} & {} | {}"]).format(*rng.choices(choices, k=3))  # noqa: E731
        return f"/x/a => /#/memory/{rng.choice(names)} ; /x/b => {rng.choice(['~', '/x/a', '!'])} ; /svc/web => {tree()}"

    source = MemorySource()
    dtab = Cell(read_dtab(table()))
    plain = LocalInterpreter(LiveNamers([memory_namer(source)]), dtab)
    kept = LocalInterpreter(plain.namers, dtab, keeps_alternatives=True)
    live, alternatives = plain.bind(NAME), kept.bind(NAME)
    leaves = [live.subscribe(lambda: None), alternatives.subscribe(lambda: None)]
    for _ in range(15):
        if rng.random() < 0.4:
            dtab.set(read_dtab(table()))
        else:
            await source.put(f"/{rng.choice(names)}", rng.choice([Neg(), replicas(1), replicas(1, 2), Replicas()]))
        await turns(rng.randrange(6))
    await turns(40)

    def answer(rest):
        state = source.states.get(rest.take(1), Neg())
        bound = Bound(read_path("/#/memory") + rest.take(1), rest.drop(1))
        return Leaf(bound) if isinstance(state, Replicas) and state.addresses else Neg()

    expected = bind(dtab.now, NAME, Namers({"/#/memory": answer}))
    assert live.now == expected
    assert first_choices(alternatives.now) == expected
    for leave in leaves:
        leave()
    await plain.close()
