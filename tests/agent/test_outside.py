"""Names outside the mesh while the system's resolver does not answer."""

import asyncio
import socket
import threading

import pytest

from meshcore.agent.outside import MAX_AT_ONCE, Outside


class Mute:
    """A resolver that answers when told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()

    def __call__(self, host, port, *_, **__):
        self.asked.append(host)
        assert self.release.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", port))]


@pytest.fixture
def mute(monkeypatch):
    resolver = Mute()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.release.set()


def follow(outside, *paths):
    for path in paths:
        outside.follow(path, lambda: None)


async def until(claim):
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.01)


def test_who_ends_does_not_wait_for_a_resolver_that_says_nothing(mute):
    async def scenario():
        outside = Outside()
        follow(outside, "slow.test:80")
        await until(lambda: mute.asked)
        outside.close()

    living = threading.Thread(target=lambda: asyncio.run(scenario()), daemon=True)
    living.start()
    living.join(20)
    assert not living.is_alive()


def test_names_that_were_dropped_keep_their_place_until_the_resolver_has_answered(mute):
    async def scenario():
        outside = Outside()
        first = [f"first-{number}.test:80" for number in range(MAX_AT_ONCE)]
        follow(outside, *first)
        await until(lambda: len(mute.asked) == MAX_AT_ONCE)
        for path in first:
            outside.drop(path)
        follow(outside, "next.test:80")
        await asyncio.sleep(0.2)
        assert len(mute.asked) == MAX_AT_ONCE
        mute.release.set()
        await until(lambda: outside.addresses("next.test:80"))
        assert outside.addresses("next.test:80") == ("192.0.2.7:80",)
        outside.close()

    asyncio.run(scenario())


def test_a_name_without_a_thread_is_asked_for_again_later(mute, monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    async def scenario():
        outside = Outside()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            follow(outside, *(f"n{number}.test:80" for number in range(MAX_AT_ONCE + 1)))
            await until(lambda: all(outside.addresses(f"n{number}.test:80") == () for number in range(MAX_AT_ONCE + 1)))
        mute.release.set()
        follow(outside, "next.test:80")
        await until(lambda: outside.addresses("next.test:80"))
        outside.close()

    asyncio.run(scenario())
