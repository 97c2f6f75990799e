"""Random numbers: reproducible, even, different per seed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import RngDoor

MASK = (1 << 64) - 1
seeds = st.integers(0, MASK)


def splitmix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def rotate(x: int, bits: int) -> int:
    return (x << bits | x >> 64 - bits) & MASK


def xoroshiro(seed: int, n: int) -> list[int]:
    """xoroshiro128++ over big integers."""
    a = splitmix(seed + 0x9E3779B97F4A7C15 & MASK)
    b = splitmix(seed + 2 * 0x9E3779B97F4A7C15 & MASK)
    numbers = []
    for _ in range(n):
        numbers.append(rotate(a + b & MASK, 17) + a & MASK)
        b ^= a
        a, b = rotate(a, 49) ^ b ^ (b << 21 & MASK), rotate(b, 28)
    return numbers


@given(seeds)
def test_the_sequence_is_that_of_the_published_generator(seed):
    rng = RngDoor(seed)
    assert [rng.next() for _ in range(20)] == xoroshiro(seed, 20)


@given(seeds, st.integers(0, 2**32 - 1))
def test_a_number_below_n_is_below_n(seed, n):
    rng = RngDoor(seed)
    assert all(0 <= rng.below(n) < max(n, 1) for _ in range(20))


def test_every_number_below_n_comes_up_about_equally_often():
    rng = RngDoor(7)
    counts = Counter(rng.below(10) for _ in range(100_000))
    assert set(counts) == set(range(10))
    # Five standard deviations of a binomial(100000, 0.1).
    assert all(abs(count - 10_000) < 5 * 95 for count in counts.values()), counts


def test_neighbouring_seeds_give_unrelated_sequences():
    firsts = [RngDoor(seed).next() for seed in range(1000)]
    assert len(set(firsts)) == 1000
    differing_bits = [(a ^ b).bit_count() for a, b in zip(firsts, firsts[1:], strict=False)]
    assert 28 < sum(differing_bits) / len(differing_bits) < 36
