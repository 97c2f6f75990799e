# The door to the policy rooms: each struct as a small class with the clock and the seed as arguments, so that tests can
# replay it, and the histogram functions that the statistics code uses. Traffic never passes here.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from meshcore.engine.rng cimport Rng, rng_below, rng_next, rng_seed
from meshcore.engine.silence cimport Silences, silence_broken, silence_note, silence_streak
from meshcore.engine.histogram cimport HISTOGRAM_BUCKETS, Histogram, histogram_index, histogram_lower_bound_ns
from meshcore.engine.histogram cimport histogram_merge as histogram_merge_into
from meshcore.engine.histogram cimport histogram_quantile_ns, histogram_record, histogram_upper_bound_ns
from meshcore.engine.ewma cimport Ewma, ewma_cost, ewma_observe
from meshcore.engine.snapshot cimport Arena, BreakerConf, BudgetConf, ClusterConf, EndpointConf, RouteConf
from meshcore.engine.snapshot cimport arena_alloc, arena_free, arena_text
from meshcore.engine.snapshot cimport BACKOFF_DECORRELATED, BACKOFF_DOUBLING
from meshcore.engine.breaker cimport Breaker, breaker_admits, breaker_is_ejected, breaker_on_abandoned, breaker_on_failure
from meshcore.engine.breaker cimport breaker_on_pick, breaker_on_success, breaker_on_unreachable
from meshcore.engine.budget cimport Budget, budget_balance_ppm, budget_deposit, budget_withdraw
from meshcore.engine.endpoint cimport ClusterState, EndpointState
from meshcore.engine.balance cimport balance_pick
from meshcore.engine.routes cimport RouteMatch, RouteTable, routes_build, routes_find


cdef extern from *:
    """
    /* The optimiser may not carry anything across it: `repeat` loops do the work as often as they say. */
    #define MC_POLICY_BARRIER() __asm__ volatile("" ::: "memory")
    """
    void policy_barrier "MC_POLICY_BARRIER"() noexcept nogil


# --- histograms as bytes ------------------------------------------------------------------------------------------

cdef Histogram* histogram_of(bytes raw) except NULL:
    """A private copy of `raw`: bytes carry no promise of alignment. Free it."""
    cdef Histogram* histogram
    if raw is None:
        raise TypeError("a raw histogram is bytes, got None")
    if len(raw) != sizeof(Histogram):
        raise ValueError(f"a raw histogram is {sizeof(Histogram)} bytes (count, sum_ns, max_ns, counts), "
                         f"got {len(raw)}")
    histogram = <Histogram*>calloc(1, sizeof(Histogram))
    if histogram == NULL:
        raise MemoryError
    memcpy(histogram, PyBytes_AS_STRING(raw), sizeof(Histogram))
    return histogram


def histogram_quantiles(bytes raw not None, qs) -> list[int]:
    """The durations in ns that the shares `qs` (0..1) of the samples do not exceed; 0 for an empty histogram."""
    cdef Histogram* histogram = histogram_of(raw)
    try:
        return [histogram_quantile_ns(histogram, q) for q in qs]
    finally:
        free(histogram)


def histogram_merge(raws) -> bytes:
    """The sum of any number of raw histograms; of none, an empty one."""
    cdef Histogram* total = <Histogram*>calloc(1, sizeof(Histogram))
    cdef Histogram* one
    if total == NULL:
        raise MemoryError
    try:
        for raw in raws:
            one = histogram_of(raw)
            histogram_merge_into(total, one)
            free(one)
        return PyBytes_FromStringAndSize(<char*>total, sizeof(Histogram))
    finally:
        free(total)


def histogram_changes(new, old) -> bytes:
    """What `new` has that `old` had not, without the buckets that are the same: for each other one its index (u16) and the
    difference (u32), little-endian; b"" when nothing was added. Both: raw histograms, as any buffer; no copy is made."""
    cdef Py_buffer late
    cdef Py_buffer early
    PyObject_GetBuffer(new, &late, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(old, &early, PyBUF_SIMPLE)
        try:
            if late.len != sizeof(Histogram) or early.len != sizeof(Histogram):
                raise ValueError(f"a raw histogram is {sizeof(Histogram)} bytes, got {late.len} and {early.len}")
            return _histogram_changes(<const Histogram*>late.buf, <const Histogram*>early.buf)
        finally:
            PyBuffer_Release(&early)
    finally:
        PyBuffer_Release(&late)


cdef bytes _histogram_changes(const Histogram* now, const Histogram* before):
    cdef uint8_t out[6 * HISTOGRAM_BUCKETS]
    cdef uint8_t* at = out
    cdef uint64_t more
    cdef uint32_t i
    for i in range(<uint32_t>HISTOGRAM_BUCKETS):
        if now.counts[i] == before.counts[i]:
            continue
        # Counters of a thing that was born anew run from zero again: then all of them are new.
        more = now.counts[i] - before.counts[i] if now.counts[i] > before.counts[i] else now.counts[i]
        if more == 0:
            continue
        more = min(more, <uint64_t>0xFFFFFFFF)
        at[0], at[1] = <uint8_t>(i & 255), <uint8_t>(i >> 8)
        at[2], at[3] = <uint8_t>(more & 255), <uint8_t>(more >> 8 & 255)
        at[4], at[5] = <uint8_t>(more >> 16 & 255), <uint8_t>(more >> 24)
        at += 6
    return PyBytes_FromStringAndSize(<char*>out, at - out)


def histogram_of_changes(changes) -> bytes:
    """The sum of any number of such differences, as a raw histogram. Its sum and maximum are those of the buckets' upper
    ends. ValueError for bytes that are none."""
    cdef Histogram* total = <Histogram*>calloc(1, sizeof(Histogram))
    cdef const uint8_t* at
    cdef Py_ssize_t n
    cdef uint32_t index
    cdef uint32_t count
    if total == NULL:
        raise MemoryError
    try:
        for one in changes:
            at = <const uint8_t*>PyBytes_AS_STRING(<bytes?>one)
            n = len(one)
            if n % 6:
                raise ValueError(f"{n} bytes are no histogram's changes; expected 6 for each bucket")
            while n:
                index = at[0] | <uint32_t>at[1] << 8
                count = at[2] | <uint32_t>at[3] << 8 | <uint32_t>at[4] << 16 | <uint32_t>at[5] << 24
                if index >= HISTOGRAM_BUCKETS:
                    raise ValueError(f"no histogram has a bucket {index}; the last is {HISTOGRAM_BUCKETS - 1}")
                total.counts[index] += count
                total.count += count
                total.sum_ns += count * histogram_upper_bound_ns(index)
                total.max_ns = max(total.max_ns, histogram_upper_bound_ns(index))
                at += 6
                n -= 6
        return PyBytes_FromStringAndSize(<char*>total, sizeof(Histogram)) if total.count else b""
    finally:
        free(total)


def histogram_bounds() -> list[int]:
    """The upper bound in ns of each bucket, exclusive; the first bucket begins at 0, each other where the last ends."""
    return [histogram_upper_bound_ns(i) for i in range(HISTOGRAM_BUCKETS)]


# --- the rooms one by one -----------------------------------------------------------------------------------------

cdef class HistogramDoor:
    """One histogram."""
    cdef Histogram* histogram

    def __cinit__(self):
        self.histogram = <Histogram*>calloc(1, sizeof(Histogram))
        if self.histogram == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.histogram)

    def record(self, uint64_t ns, uint32_t repeat=1) -> None:
        cdef uint32_t i
        with nogil:
            for i in range(repeat):
                histogram_record(self.histogram, ns)
                policy_barrier()

    def quantile_ns(self, double q) -> int:
        return histogram_quantile_ns(self.histogram, q)

    def merge(self, HistogramDoor other not None) -> None:
        histogram_merge_into(self.histogram, other.histogram)

    def raw(self) -> bytes:
        return PyBytes_FromStringAndSize(<char*>self.histogram, sizeof(Histogram))

    @staticmethod
    def index(uint64_t ns) -> int:
        return histogram_index(ns)

    @staticmethod
    def bounds_ns(uint32_t index) -> tuple[int, int]:
        if index >= HISTOGRAM_BUCKETS:
            raise IndexError(f"bucket {index} of {<int>HISTOGRAM_BUCKETS}")
        return histogram_lower_bound_ns(index), histogram_upper_bound_ns(index)


cdef class RngDoor:
    """One random sequence."""
    cdef Rng rng

    def __init__(self, uint64_t seed):
        rng_seed(&self.rng, seed)

    def next(self) -> int:
        return rng_next(&self.rng)

    def below(self, uint32_t n) -> int:
        return rng_below(&self.rng, n)


cdef class EwmaDoor:
    """One moving average with a fixed decay time."""
    cdef Ewma ewma
    cdef uint64_t decay_ns

    def __init__(self, uint64_t decay_ns):
        self.decay_ns = decay_ns

    def observe(self, double rtt_ns, uint64_t now_ns) -> None:
        ewma_observe(&self.ewma, rtt_ns, now_ns, self.decay_ns)

    def cost_ns(self, uint64_t now_ns) -> float:
        return ewma_cost(&self.ewma, now_ns, self.decay_ns)


cdef class SilencesDoor:
    """One worker's memory of clients that waited in silence."""
    cdef Silences silences

    def streak(self, uint64_t key) -> int:
        return silence_streak(&self.silences, key)

    def note(self, uint64_t key) -> None:
        silence_note(&self.silences, key)

    def broken(self, uint64_t key) -> None:
        silence_broken(&self.silences, key)


cdef class BreakerDoor:
    """One breaker with its configuration. `success_rate`: as in the plan of a cluster."""
    cdef Breaker breaker
    cdef BreakerConf conf
    cdef Rng rng

    def __init__(self, uint32_t consecutive_failures=5, uint64_t backoff_ns=1_000_000_000,
                 uint64_t max_backoff_ns=60_000_000_000, uint32_t jitter_ppm=0, uint64_t seed=1, *,
                 bint decorrelated=False, success_rate=None):
        self.conf.consecutive_failures = consecutive_failures
        self.conf.backoff.first_ns = backoff_ns
        self.conf.backoff.longest_ns = max_backoff_ns
        self.conf.backoff.jitter_ppm = jitter_ppm
        self.conf.backoff.kind = BACKOFF_DECORRELATED if decorrelated else BACKOFF_DOUBLING
        if success_rate is not None:
            self.conf.success_rate.least_ppm = success_rate["least_ppm"]
            self.conf.success_rate.requests = success_rate["requests"]
            self.conf.success_rate.window_ns = success_rate["window_ns"]
            self.conf.success_rate.kept = success_rate["kept"]
        rng_seed(&self.rng, seed)

    def admits(self, uint64_t now_ns) -> bool:
        return breaker_admits(&self.breaker, now_ns) != 0

    def on_pick(self, uint64_t now_ns) -> None:
        breaker_on_pick(&self.breaker, now_ns)

    def on_success(self, uint64_t now_ns=0) -> None:
        breaker_on_success(&self.breaker, &self.conf, now_ns)

    def on_failure(self, uint64_t now_ns) -> bool:
        return breaker_on_failure(&self.breaker, &self.conf, now_ns, &self.rng) != 0

    def on_unreachable(self, uint64_t now_ns) -> None:
        breaker_on_unreachable(&self.breaker, &self.conf, now_ns)

    def on_abandoned(self, uint64_t now_ns) -> None:
        breaker_on_abandoned(&self.breaker, now_ns)

    @property
    def state(self) -> str:
        return ("closed", "open", "half_open", "unreachable")[self.breaker.state]

    @property
    def until_ns(self) -> int:
        return self.breaker.until_ns

    @property
    def success_rate(self) -> float:
        """Of the latest requests; of none, 0."""
        return self.breaker.rate.rate if self.breaker.rate.requests else 0.0


cdef class BudgetDoor:
    """One retry budget with its configuration."""
    cdef Budget budget
    cdef BudgetConf conf

    def __init__(self, uint32_t ratio_ppm=200_000, uint32_t min_per_second=3, uint32_t ttl_ms=10_000):
        self.conf.ratio_ppm = ratio_ppm
        self.conf.min_per_second = min_per_second
        self.conf.ttl_ms = ttl_ms

    def deposit(self, uint64_t now_ns, uint32_t repeat=1) -> None:
        cdef uint32_t i
        with nogil:
            for i in range(repeat):
                budget_deposit(&self.budget, &self.conf, now_ns)
                policy_barrier()

    def withdraw(self, uint64_t now_ns) -> bool:
        return budget_withdraw(&self.budget, &self.conf, now_ns) != 0

    def balance_ppm(self, uint64_t now_ns) -> int:
        return budget_balance_ppm(&self.budget, &self.conf, now_ns)


cdef class BalancerDoor:
    """A cluster with one endpoint per weight, and what one worker knows of it. `kind`: snapshot.BalancerKind."""
    cdef ClusterConf cluster
    cdef ClusterState cluster_state
    cdef EndpointState** states
    cdef Arena arena
    cdef Rng rng

    def __cinit__(self, weights, uint8_t kind, *, uint64_t seed=1, uint32_t consecutive_failures=5,
                  uint64_t backoff_ns=1_000_000_000, uint64_t max_backoff_ns=60_000_000_000, uint32_t jitter_ppm=0,
                  uint32_t panic_percent=50, uint64_t decay_ns=10_000_000_000):
        cdef uint32_t i
        cdef uint32_t n = len(weights)
        cdef ClusterConf* cluster = &self.cluster
        cluster.balancer = kind
        cluster.ewma_decay_ns = decay_ns
        cluster.breaker.consecutive_failures = consecutive_failures
        cluster.breaker.backoff.first_ns = backoff_ns
        cluster.breaker.backoff.longest_ns = max_backoff_ns
        cluster.breaker.backoff.jitter_ppm = jitter_ppm
        cluster.breaker.panic_percent = panic_percent
        cluster.endpoints = <EndpointConf*>arena_alloc(&self.arena, n * sizeof(EndpointConf))
        cluster.cumulative_weights = <uint32_t*>arena_alloc(&self.arena, n * sizeof(uint32_t))
        self.states = <EndpointState**>arena_alloc(&self.arena, n * sizeof(EndpointState*))
        if cluster.endpoints == NULL or cluster.cumulative_weights == NULL or self.states == NULL:
            raise MemoryError
        for i in range(n):
            # Slots in reverse: a verb that confuses index and slot cannot pass.
            cluster.endpoints[i].slot = n - 1 - i
            self.states[n - 1 - i] = <EndpointState*>arena_alloc(&self.arena, sizeof(EndpointState))
            if self.states[n - 1 - i] == NULL:
                raise MemoryError
        rng_seed(&self.rng, seed)
        self.set_weights(weights)

    def __dealloc__(self):
        arena_free(&self.arena)

    def set_weights(self, weights) -> None:
        """What a new configuration of the same endpoints does; the states stay."""
        cdef uint32_t i
        cdef ClusterConf* cluster = &self.cluster
        cluster.n_endpoints = 0
        cluster.total_weight = 0
        for i, weight in enumerate(weights):
            cluster.endpoints[i].weight = weight
            cluster.total_weight += cluster.endpoints[i].weight
            cluster.cumulative_weights[i] = cluster.total_weight
            cluster.n_endpoints += 1
        cluster.weights_equal = len(set(weights)) == 1 and weights[0] > 0

    cdef EndpointState* endpoint(self, uint32_t i) except NULL:
        if i >= self.cluster.n_endpoints:
            raise IndexError(f"endpoint {i} of {self.cluster.n_endpoints}")
        return self.states[self.cluster.endpoints[i].slot]

    def pick(self, uint64_t now_ns=0, uint64_t excluded=0, uint32_t repeat=1) -> int:
        cdef int32_t chosen = -1
        cdef uint32_t i
        with nogil:
            for i in range(repeat):
                chosen = balance_pick(&self.cluster, self.states, &self.cluster_state, &self.rng, now_ns,
                                      &excluded if excluded else NULL)
                policy_barrier()
        return chosen

    def start(self, uint32_t i) -> None:
        self.endpoint(i).active += 1

    def finish(self, uint32_t i) -> None:
        self.endpoint(i).active -= 1

    def observe(self, uint32_t i, double rtt_ns, uint64_t now_ns) -> None:
        ewma_observe(&self.endpoint(i).ewma, rtt_ns, now_ns, self.cluster.ewma_decay_ns)

    def cost_ns(self, uint32_t i, uint64_t now_ns) -> float:
        return ewma_cost(&self.endpoint(i).ewma, now_ns, self.cluster.ewma_decay_ns)

    def succeed(self, uint32_t i) -> None:
        breaker_on_success(&self.endpoint(i).breaker, &self.cluster.breaker, 0)

    def fail(self, uint32_t i, uint64_t now_ns) -> bool:
        return breaker_on_failure(&self.endpoint(i).breaker, &self.cluster.breaker, now_ns, &self.rng) != 0

    def cannot_reach(self, uint32_t i, uint64_t now_ns) -> bool:
        ejected = self.fail(i, now_ns)
        breaker_on_unreachable(&self.endpoint(i).breaker, &self.cluster.breaker, now_ns)
        return ejected

    def set_unhealthy(self, uint32_t i, bint unhealthy) -> None:
        self.endpoint(i).unhealthy = unhealthy

    def admits(self, uint32_t i, uint64_t now_ns) -> bool:
        return breaker_admits(&self.endpoint(i).breaker, now_ns) != 0

    def breaker_state(self, uint32_t i) -> str:
        return ("closed", "open", "half_open", "unreachable")[self.endpoint(i).breaker.state]


cdef class RouteTableDoor:
    """A route table of (host_kind, host, path_kind, path, method_mask) tuples; kinds as in the plan, bytes for text."""
    cdef RouteTable* table
    cdef RouteConf* routes
    cdef Arena arena

    def __cinit__(self, matches, uint64_t seed=1):
        cdef uint32_t n = len(matches)
        cdef uint32_t i
        cdef bytes host, path
        cdef RouteMatch* compiled = <RouteMatch*>arena_alloc(&self.arena, n * sizeof(RouteMatch))
        self.routes = <RouteConf*>arena_alloc(&self.arena, n * sizeof(RouteConf))
        if compiled == NULL or self.routes == NULL:
            raise MemoryError
        for i in range(n):
            compiled[i].host_kind, host, compiled[i].path_kind, path, self.routes[i].method_mask = matches[i]
            compiled[i].host = arena_text(&self.arena, PyBytes_AS_STRING(host), len(host))
            compiled[i].path = arena_text(&self.arena, PyBytes_AS_STRING(path), len(path))
            compiled[i].route = &self.routes[i]
            self.routes[i].order = i
        self.table = routes_build(&self.arena, compiled, n, seed)
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        arena_free(&self.arena)

    def find(self, bytes host not None, bytes path not None, uint32_t method_bit=1, uint32_t repeat=1) -> int | None:
        """The position of the matching tuple, or None. `host` lower-cased without port, `path` without query."""
        cdef RouteConf* route = NULL
        cdef const char* host_at = PyBytes_AS_STRING(host)
        cdef const char* path_at = PyBytes_AS_STRING(path)
        cdef uint32_t host_len = len(host)
        cdef uint32_t path_len = len(path)
        cdef uint32_t i
        with nogil:
            for i in range(repeat):
                route = routes_find(self.table, host_at, host_len, path_at, path_len, method_bit, NULL)
                policy_barrier()
        return None if route == NULL else route.order

    @property
    def memory_bytes(self) -> int:
        return self.arena.total_bytes
