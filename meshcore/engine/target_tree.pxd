# Which cluster of a tree a request goes to: the first alternative with somebody alive, shares by weight among those alive.
# Chooses a cluster; which of its endpoints is balance's choice.
#
# Alive is a cluster with an endpoint that its breaker and its health checks admit. Where nobody is alive anywhere, the
# first alternative stands, and a share is drawn among all: what then becomes of the request is told by the cluster itself.
# What is nothing on purpose (`$` of a dtab) counts as alive: it keeps its share, and ends alternatives.

from libc.stdint cimport uint32_t, uint64_t

from meshcore.engine.breaker cimport breaker_admits
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.rng cimport Rng, rng_below
from meshcore.engine.snapshot cimport TARGET_CLUSTER, TARGET_FIRST, ClusterConf, TargetNode

cdef enum:
    TREE_MAX_DEPTH = 32                 # checked when a tree is built: each level is a call
    TREE_MAX_LEAVES = 64                # whose being used up an exchange can remember


cdef inline const TargetNode* tree_choose(const TargetNode* node, EndpointState** states, Rng* rng, uint64_t now_ns,
                                          uint64_t spent) noexcept nogil:
    """A cluster of the tree. `spent`: leaves that count as dead for this request."""
    cdef uint32_t i
    while node.kind != TARGET_CLUSTER:
        if node.kind == TARGET_FIRST:
            for i in range(node.n_children):
                if tree_is_alive(&node.children[i], states, now_ns, spent):
                    break
            else:
                i = 0
            node = &node.children[i]
        else:
            node = tree_draw(node, states, rng, now_ns, spent)
    return node


cdef inline const TargetNode* tree_draw(const TargetNode* node, EndpointState** states, Rng* rng, uint64_t now_ns,
                                        uint64_t spent) noexcept nogil:
    cdef uint32_t alive = 0
    cdef uint32_t total = 0
    cdef uint32_t point
    cdef uint32_t i
    cdef int any_will_do
    for i in range(node.n_children):
        total += node.children[i].weight
        if node.children[i].weight and tree_is_alive(&node.children[i], states, now_ns, spent):
            alive += node.children[i].weight
    any_will_do = alive == 0 or alive == total
    if total == 0:
        return &node.children[0]
    point = rng_below(rng, alive if alive else total)
    for i in range(node.n_children):
        if node.children[i].weight == 0 or not (any_will_do or tree_is_alive(&node.children[i], states, now_ns, spent)):
            continue
        if point < node.children[i].weight:
            return &node.children[i]
        point -= node.children[i].weight
    return &node.children[0]


cdef inline int tree_is_alive(const TargetNode* node, EndpointState** states, uint64_t now_ns, uint64_t spent) noexcept nogil:
    cdef uint32_t i
    if node.kind == TARGET_CLUSTER:
        if node.leaf < TREE_MAX_LEAVES and spent >> node.leaf & 1:
            return 0
        return node.cluster.is_nothing or tree_cluster_is_alive(node.cluster, states, now_ns, 0)
    for i in range(node.n_children):
        if (node.kind == TARGET_FIRST or node.children[i].weight) \
                and tree_is_alive(&node.children[i], states, now_ns, spent):
            return 1
    return 0


cdef inline int tree_cluster_is_alive(const ClusterConf* cluster, EndpointState** states, uint64_t now_ns,
                                      uint64_t excluded) noexcept nogil:
    """Is there an endpoint to send to? `excluded`: endpoints that do not count, by index, the first 64."""
    cdef const EndpointState* state
    cdef uint32_t i
    for i in range(cluster.n_endpoints):
        if cluster.endpoints[i].weight == 0 or (i < 64 and excluded >> i & 1):
            continue
        state = states[cluster.endpoints[i].slot]
        if state.unhealthy == 0 and breaker_admits(&state.breaker, now_ns):
            return 1
    return 0
