# Which endpoint of a cluster gets the next request. Reads states and breakers; sends nothing, counts nothing.
#
# All four balancers honour weights and skip what its breaker or its health checks keep out:
#   round robin     equal weights: a cursor, O(1). Unequal: smooth weighted round robin (as in nginx), exact over every
#                   sum-of-weights picks, O(n): a cluster of thousands of unequal endpoints should use another.
#   random          weighted draw, O(log n)
#   least request   power of two distinct choices (Mitzenmacher 2001), cost (active + 1) / weight
#   peak EWMA       the same, cost ewma * (active + 1) / weight
# A draw that hits an unusable endpoint is repeated a few times, then one linear scan decides.
# Panic: when fewer than panic_percent of the endpoints are admitted, ejection and health are ignored: sending all
# to the few left would take them down too, and checks that fail everywhere speak of the checks, not of endpoints.
# The verdict of health checks is one byte that another thread writes: a pick sees the old one or the new.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from meshcore.engine.rng cimport Rng, rng_below
from meshcore.engine.ewma cimport ewma_cost, ewma_is_measured
from meshcore.engine.snapshot cimport BALANCER_LEAST_REQUEST, BALANCER_RANDOM, BALANCER_ROUND_ROBIN, ClusterConf
from meshcore.engine.breaker cimport BREAKER_CLOSED, BREAKER_UNREACHABLE, breaker_admits, breaker_on_pick
from meshcore.engine.endpoint cimport ClusterState, EndpointState


cdef enum:
    BALANCE_NO_ENDPOINT = -1            # the cluster is empty or every weight is 0
    BALANCE_ALL_EJECTED = -2
    BALANCE_DRAWS = 4                   # with half the endpoints out, 15 of 16 picks still need no scan
    BALANCE_EXACT_PANIC = 16            # up to here the admitted endpoints are counted whenever the answer matters
    BALANCE_PANIC_STANDS_NS = 10_000_000    # beyond, the verdict stands for 10 ms: far below any backoff
    BALANCE_PANIC_UNKNOWN = 2


cdef struct Pick:                       # one decision in progress
    const ClusterConf* cluster
    EndpointState** states
    ClusterState* state
    Rng* rng
    uint64_t now_ns
    uint64_t excluded_bits
    uint32_t panic
    bint any_will_do                    # even what is out of reach


cdef inline int32_t balance_pick(const ClusterConf* cluster, EndpointState** states, ClusterState* state, Rng* rng,
                                 uint64_t now_ns, const uint64_t* excluded_bits) noexcept nogil:
    """The index of the chosen endpoint in `cluster.endpoints`, BALANCE_NO_ENDPOINT or BALANCE_ALL_EJECTED.

    `states` is indexed by slot. `excluded_bits` (may be NULL): endpoints this exchange has already tried, bit = index,
    first 64 only; they are chosen only when nothing else is usable. Those out of reach are chosen after them. The chosen one's breaker is told (a due endpoint
    becomes its own probe); the caller counts `active`.
    """
    cdef Pick pick
    cdef int32_t chosen
    if cluster.total_weight == 0:
        return BALANCE_NO_ENDPOINT
    pick.cluster = cluster
    pick.states = states
    pick.state = state
    pick.rng = rng
    pick.now_ns = now_ns
    pick.excluded_bits = excluded_bits[0] if excluded_bits != NULL else 0
    pick.panic = BALANCE_PANIC_UNKNOWN
    pick.any_will_do = False
    chosen = balance_choose(&pick)
    if chosen < 0:
        chosen = balance_choose_worse(&pick)
        if chosen < 0:
            return BALANCE_ALL_EJECTED
    breaker_on_pick(&balance_state(&pick, chosen).breaker, now_ns)
    return chosen


cdef inline int32_t balance_choose_worse(Pick* pick) noexcept nogil:
    """No untried endpoint is usable: a tried one, else one that is known to be out of reach, untried if possible."""
    cdef uint64_t excluded_bits = pick.excluded_bits
    cdef int32_t chosen = -1
    pick.excluded_bits = 0
    if excluded_bits:
        chosen = balance_choose(pick)
    if chosen < 0:
        pick.any_will_do = True
        pick.excluded_bits = excluded_bits
        chosen = balance_choose(pick)
    if chosen < 0 and excluded_bits:
        pick.excluded_bits = 0
        chosen = balance_choose(pick)
    return chosen


cdef inline int balance_admits_only(const ClusterConf* cluster, EndpointState* endpoint, uint64_t now_ns) noexcept nogil:
    """May a request go to the one endpoint it can go to? Its breaker is told if so.

    As in a cluster of one endpoint: with nobody to stand in, ejection counts only where panic is switched off.
    """
    if not breaker_admits(&endpoint.breaker, now_ns) and endpoint.breaker.state != BREAKER_UNREACHABLE \
            and cluster.breaker.panic_percent == 0:
        return 0
    breaker_on_pick(&endpoint.breaker, now_ns)
    return 1


cdef inline int32_t balance_choose(Pick* pick) noexcept nogil:
    cdef int32_t first, second
    if pick.cluster.n_endpoints == 1:
        return 0 if balance_is_usable(pick, 0) else -1
    if pick.cluster.balancer == BALANCER_ROUND_ROBIN:
        return balance_rotate(pick) if pick.cluster.weights_equal else balance_rotate_weighted(pick)
    first = balance_draw(pick, -1)
    if first < 0 or pick.cluster.balancer == BALANCER_RANDOM:
        return first
    second = balance_draw(pick, first)
    if second >= 0 and balance_prefers_second(pick, first, second):
        return second
    return first


# --- round robin --------------------------------------------------------------------------------------------------

cdef inline int32_t balance_rotate(Pick* pick) noexcept nogil:
    """Equal weights: the next usable one."""
    cdef uint32_t n = pick.cluster.n_endpoints
    cdef uint32_t tried
    cdef uint32_t i
    if pick.state.rr_endpoints != n:
        # A random start: workers and proxies that begin together must not all begin with the first endpoint.
        pick.state.rr_endpoints = n
        pick.state.rr_next = rng_below(pick.rng, n)
    for tried in range(n):
        i = pick.state.rr_next
        pick.state.rr_next = i + 1 if i + 1 < n else 0
        if balance_is_usable(pick, i):
            return <int32_t>i
    return -1


cdef inline int32_t balance_rotate_weighted(Pick* pick) noexcept nogil:
    """Everyone usable earns its weight in credit; the richest is picked and pays what was handed out."""
    cdef EndpointState* endpoint
    cdef EndpointState* richest = NULL
    cdef int32_t chosen = -1
    cdef int64_t handed_out = 0
    cdef uint32_t weight
    cdef uint32_t i
    for i in range(pick.cluster.n_endpoints):
        weight = pick.cluster.endpoints[i].weight
        if weight == 0 or not balance_is_usable(pick, i):
            continue
        endpoint = balance_state(pick, i)
        endpoint.wrr_current += weight
        handed_out += weight
        if richest == NULL or endpoint.wrr_current > richest.wrr_current:
            richest = endpoint
            chosen = <int32_t>i
    if richest != NULL:
        richest.wrr_current -= handed_out
    return chosen


# --- draws --------------------------------------------------------------------------------------------------------

cdef inline int32_t balance_draw(Pick* pick, int32_t other) noexcept nogil:
    """A usable endpoint but `other` (-1: any), drawn by weight; -1 when there is none."""
    cdef int32_t i
    cdef int draw
    for draw in range(BALANCE_DRAWS):
        i = balance_sample(pick, other)
        if i < 0 or balance_is_usable(pick, <uint32_t>i):
            return i
    return balance_scan(pick, other)


cdef inline int32_t balance_sample(Pick* pick, int32_t other) noexcept nogil:
    """Any endpoint but `other`, drawn by weight. The draw skips over `other`'s share, so it needs no second try."""
    cdef const ClusterConf* cluster = pick.cluster
    cdef uint32_t drawn
    cdef uint32_t weight
    if cluster.weights_equal:
        if other < 0:
            return <int32_t>rng_below(pick.rng, cluster.n_endpoints)
        drawn = rng_below(pick.rng, cluster.n_endpoints - 1)
        return <int32_t>(drawn + (drawn >= <uint32_t>other))
    if other < 0:
        return balance_search(cluster, rng_below(pick.rng, cluster.total_weight))
    weight = cluster.endpoints[other].weight
    if weight == cluster.total_weight:
        return -1
    drawn = rng_below(pick.rng, cluster.total_weight - weight)
    if drawn >= cluster.cumulative_weights[other] - weight:
        drawn += weight
    return balance_search(cluster, drawn)


cdef inline int32_t balance_search(const ClusterConf* cluster, uint32_t point) noexcept nogil:
    """The endpoint whose share of [0, total_weight) holds `point`: the first running sum above it."""
    cdef uint32_t low = 0
    cdef uint32_t high = cluster.n_endpoints - 1
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if cluster.cumulative_weights[middle] > point:
            high = middle
        else:
            low = middle + 1
    return <int32_t>low


cdef inline int32_t balance_scan(Pick* pick, int32_t other) noexcept nogil:
    """The same draw among the usable ones only, in two passes over the cluster."""
    cdef uint32_t usable_weight = 0
    cdef uint32_t point = 0
    cdef uint32_t weight
    cdef uint32_t i
    for i in range(pick.cluster.n_endpoints):
        weight = pick.cluster.endpoints[i].weight
        if weight and <int32_t>i != other and balance_is_usable(pick, i):
            usable_weight += weight
    if usable_weight == 0:
        return -1
    point = rng_below(pick.rng, usable_weight)
    for i in range(pick.cluster.n_endpoints):
        weight = pick.cluster.endpoints[i].weight
        if weight and <int32_t>i != other and balance_is_usable(pick, i):
            if point < weight:
                return <int32_t>i
            point -= weight
    return -1


# --- comparing two ------------------------------------------------------------------------------------------------

cdef inline bint balance_prefers_second(Pick* pick, int32_t first, int32_t second) noexcept nogil:
    """Is the second choice cheaper? The first, which was drawn by weight, keeps a tie.

    With unequal weights (active + 1) / weight alone would starve the light ones of an idle cluster: there the request
    itself is all the load, and 1 / weight is always least for the heaviest. So the second must also win when the
    request counts alike for both: idle clusters follow the draw, which is exact, loaded ones even out active / weight.
    """
    cdef const EndpointState* a = balance_state(pick, first)
    cdef const EndpointState* b = balance_state(pick, second)
    cdef uint32_t weight_a = pick.cluster.endpoints[first].weight
    cdef uint32_t weight_b = pick.cluster.endpoints[second].weight
    cdef double active_a = a.active
    cdef double active_b = b.active
    cdef double cost_a = 1.0
    cdef double cost_b = 1.0
    cdef double share_a = 1.0
    cdef double share_b = 1.0
    if pick.cluster.balancer != BALANCER_LEAST_REQUEST:
        cost_a = ewma_cost(&a.ewma, pick.now_ns, pick.cluster.ewma_decay_ns)
        cost_b = ewma_cost(&b.ewma, pick.now_ns, pick.cluster.ewma_decay_ns)
        # A newcomer is neither free nor shunned: until its first answer it costs what its rival costs.
        if not ewma_is_measured(&a.ewma):
            cost_a = cost_b
        elif not ewma_is_measured(&b.ewma):
            cost_b = cost_a
    if weight_a == weight_b:
        return cost_a * (active_a + 1.0) > cost_b * (active_b + 1.0)
    # Shares of the lighter one's load: lighter weight / weight, 1 for the lighter itself.
    if weight_a < weight_b:
        share_b = <double>weight_a / weight_b
    else:
        share_a = <double>weight_b / weight_a
    return (cost_a * (active_a + 1.0) * share_a > cost_b * (active_b + 1.0) * share_b
            and cost_a * (active_a * share_a + 1.0) > cost_b * (active_b * share_b + 1.0))


# --- who may be picked --------------------------------------------------------------------------------------------

cdef inline EndpointState* balance_state(const Pick* pick, int32_t i) noexcept nogil:
    return pick.states[pick.cluster.endpoints[i].slot]


cdef inline bint balance_is_usable(Pick* pick, uint32_t i) noexcept nogil:
    if i < 64 and (pick.excluded_bits >> i) & 1:
        return False
    return balance_admits(pick, i) or balance_stands_in(pick, i)


cdef inline bint balance_admits(const Pick* pick, uint32_t i) noexcept nogil:
    cdef const EndpointState* endpoint = balance_state(pick, <int32_t>i)
    return endpoint.unhealthy == 0 and breaker_admits(&endpoint.breaker, pick.now_ns)


cdef inline bint balance_stands_in(Pick* pick, uint32_t i) noexcept nogil:
    """This one is kept out: may it be picked all the same? Panic is about answers; who cannot be reached gives none."""
    cdef const EndpointState* endpoint = balance_state(pick, <int32_t>i)
    if not balance_is_unreachable(endpoint):
        return balance_in_panic(pick)
    return pick.any_will_do and (pick.cluster.breaker.panic_percent != 0
                                 or (endpoint.breaker.state == BREAKER_UNREACHABLE and endpoint.unhealthy == 0))


cdef inline bint balance_is_unreachable(const EndpointState* endpoint) noexcept nogil:
    """Of one that is not admitted."""
    return endpoint.breaker.state != BREAKER_CLOSED and endpoint.breaker.was_unreachable != 0


cdef inline bint balance_in_panic(Pick* pick) noexcept nogil:
    """Asked only after meeting one that is kept out; counts once per pick, in a large cluster once per 10 ms."""
    if pick.panic != BALANCE_PANIC_UNKNOWN:
        return pick.panic
    if pick.cluster.n_endpoints <= BALANCE_EXACT_PANIC:
        pick.panic = balance_count_panic(pick)
    else:
        if pick.now_ns >= pick.state.panic_until_ns:
            pick.state.panic = balance_count_panic(pick)
            pick.state.panic_until_ns = pick.now_ns + BALANCE_PANIC_STANDS_NS
        pick.panic = pick.state.panic
    return pick.panic


cdef inline bint balance_count_panic(Pick* pick) noexcept nogil:
    cdef uint64_t admitted = 0
    cdef uint64_t candidates = 0
    cdef uint32_t i
    for i in range(pick.cluster.n_endpoints):
        if pick.cluster.endpoints[i].weight:
            if balance_admits(pick, i):
                admitted += 1
            elif balance_is_unreachable(balance_state(pick, <int32_t>i)):
                continue                # it is not there, whatever else is wrong
            candidates += 1
    return admitted * 100 < candidates * pick.cluster.breaker.panic_percent
