"""A value that something far away feeds: the last good one stays, and is stale, for as long as that is away."""

import asyncio

from meshcore.binder.watched import Tally, Watched


def at_once(test):
    """On a loop of its own. Not wraps: pytest would take the test for a coroutine."""

    def run():
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Far:
    """Tells what it is given, one value a call, and breaks when there is none."""

    def __init__(self, *values: str) -> None:
        self.values = list(values)
        self.calls = 0

    async def follow(self, tell) -> None:
        self.calls += 1
        if not self.values:
            raise ConnectionError("gone")
        tell(self.values.pop(0))


def watched(far: Far, linger_s: float = 60.0) -> Watched[str]:
    return Watched("it", "pending", far.follow, lambda why: f"failed: {why}", Tally(), linger_s=linger_s)


async def until(ready) -> None:
    async with asyncio.timeout(20):
        while not ready():
            await asyncio.sleep(0.005)


@at_once
async def test_the_last_good_value_stays_and_is_stale_until_there_is_another():
    far = Far("first")
    one = watched(far)
    leave = one.subscribe(lambda: None)
    await until(lambda: far.calls > 3)
    assert one.now == "first" and one.stale is not None and "gone" in one.stale.why
    far.values.append("second")
    await until(lambda: one.now == "second")
    assert one.stale is None
    leave()
    one.stop()


@at_once
async def test_a_failure_is_told_only_while_nothing_good_is_known():
    far = Far()
    one = watched(far)
    leave = one.subscribe(lambda: None)
    await until(lambda: one.now == "failed: gone")
    far.values.append("first")
    await until(lambda: one.now == "first")
    leave()
    one.stop()


@at_once
async def test_what_nobody_follows_is_forgotten_after_a_while_and_not_before():
    far = Far("first", "second")
    one = watched(far, linger_s=0.05)
    one.subscribe(lambda: None)()
    leave = one.subscribe(lambda: None)
    await until(lambda: one.now == "first")
    leave()
    await until(lambda: not one.is_watching)
    assert one.now == "pending", "it may be wrong by the time that somebody asks"
