"""A raw statistics dict as the engine hands it out, and histograms filled by hand: for tests of what is built on them."""

from array import array

from meshcore.stats import BUCKET_ENDS_NS, bucket_index

BUCKETS = len(BUCKET_ENDS_NS)


def histogram_bytes(*latencies_ns: int) -> bytes:
    words = array("Q", [0] * (3 + BUCKETS))
    for ns in latencies_ns:
        words[0] += 1
        words[1] += ns
        words[2] = max(words[2], ns)
        words[3 + bucket_index(ns)] += 1
    return words.tobytes()


MS = 1_000_000


def raw_stats(times: int = 1) -> dict:
    """Two endpoints of one cluster: 9 of 10 requests succeed, every one of them took 1 to 10 ms. `times` repeats it."""
    latency = histogram_bytes(*[ms * MS for ms in range(1, 11)] * times)
    return {
        "version": 3,
        "snapshots": 1,
        "workers": [
            {"index": 0, "connections": 3, "accepted": 7 * times, "requests": 10 * times, "wakeups": 20 * times,
             "in_flight": 1, "buffers_bytes": 2, "memory_bytes": 65536, "surprise": 1},
        ],
        "listeners": [
            {"name": "web", "accepted": 7 * times, "active": 3, "requests": 10 * times, "bytes_in": 1000 * times, "bytes_out": 5600 * times},
        ],
        "routes": [
            {"name": 'users"\\\n', "requests": 10 * times, "status_class": [0, 0, 9 * times, 0, 0, times], "latency": latency},
        ],
        "clusters": [
            {"name": "users", "in_flight": 1, "queue_len": 2, "requests": 10 * times, "successes": 9 * times, "failures": times,
             "retries": times, "budget_exhausted": 0, "queue_overflow": 0, "queue_timeouts": 0, "stale_replays": 0,
             "status_class": [0, 0, 9 * times, 0, 0, times], "latency": latency,
             "endpoints": [
                 {"address": "10.0.0.1:80", "weight": 1, "active": 1, "idle": 2, "open_connections": 3, "requests": 10 * times,
                  "successes": 9 * times, "failures": times, "connects": 3, "connect_failures": 0, "retries": times,
                  "ejections": 1, "ejected": True, "ewma_ms": 1.5, "bytes_in": 1, "bytes_out": 2, "latency": latency},
                 {"address": "10.0.0.2:80", "weight": 2, "active": 0, "idle": 0, "open_connections": 0, "requests": 0,
                  "successes": 0, "failures": 0, "connects": 0, "connect_failures": 0, "retries": 0, "ejections": 0,
                  "ejected": False, "ewma_ms": 0.0, "bytes_in": 0, "bytes_out": 0, "latency": histogram_bytes()},
             ]},
        ],
        "reasons": {"route_not_found": 2 * times, "queue_full": 0},
    }  # fmt: skip
