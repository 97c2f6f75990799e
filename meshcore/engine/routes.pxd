# Which route a request takes, by host, path, method and fields. Owns the table's shape and its memory in the arena; what a
# route then does is snapshot's and exchange's.
#
# Two trees of the same nodes: hosts by label from the right ("a.test" = test -> a), paths by segment from the left
# ("/v1/users" = v1 -> users). The edges of all trees share one hash table keyed by (parent, label), so a lookup costs
# one probe per label and per segment that the table knows, however many routes there are, and stops at the first one
# it does not know: a hostile path of 4,000 segments costs what the deepest route costs.
#
# Precedence: exact host, then the longest wildcard, then any host; within a host the exact path, then the longest
# prefix by whole segments; within a path the first listed route that takes the method and the fields. A route that does
# not take them does not hide a less specific one that does. A field is compared with each of its lines. Path
# bytes are compared as they are: no decoding, no dot segments.
# A path that does not begin with "/" ("*", an authority) is matched by routes for any path (or the prefix "/") alone.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from meshcore.engine.head cimport Field, Head
from meshcore.engine.octets cimport octets_equal_lower
from meshcore.engine.snapshot cimport Arena, FieldMatch, RouteConf, Text, arena_alloc, arena_text


cdef enum RouteHostKind:
    ROUTE_HOST_ANY = 0
    ROUTE_HOST_EXACT = 1
    ROUTE_HOST_WILDCARD = 2             # "*.a.test": one or more labels, then .a.test; not a.test itself


cdef enum RoutePathKind:
    ROUTE_PATH_ANY = 0
    ROUTE_PATH_EXACT = 1
    ROUTE_PATH_PREFIX = 2


cdef struct RouteMatch:                 # one line of the configuration, in listed order
    Text host
    Text path
    uint8_t host_kind
    uint8_t path_kind
    RouteConf* route


cdef struct RouteRule:
    RouteRule* following                # listed later, takes what no earlier one takes
    RouteConf* route
    uint32_t methods                    # bit set = taken
    uint32_t n_fields                   # of the route


cdef struct RouteNode:
    RouteNode* parent
    Text label
    uint32_t id                         # the parent's half of an edge's key
    uint32_t n_children
    RouteRule* exact                    # path ends here
    RouteRule* prefix                   # path ends here or goes on
    RouteNode* host_paths               # host ends here: root of its paths
    RouteNode* wildcard_paths           # host goes on: root of the wildcard's paths


cdef struct RouteEdge:
    uint64_t hash
    RouteNode* child                    # NULL = free


cdef struct RouteTable:
    uint64_t seed
    uint64_t slot_mask
    uint32_t slot_shift                 # slots are taken from the hash's high bits: every input bit reaches those
    RouteEdge* edges                    # open addressing, linear probing, at most half full
    uint32_t n_nodes
    RouteNode hosts                     # root of the hosts
    RouteNode any_host_paths


# --- lookup -------------------------------------------------------------------------------------------------------

cdef inline RouteConf* routes_find(const RouteTable* table, const char* host, uint32_t host_len,
                                   const char* path, uint32_t path_len, uint32_t method_bit, const Head* head) noexcept nogil:
    """The route of a request, or NULL. `host`: lower-cased, no port; `path`: no query; `method_bit`: 1 << method; `head`:
    whose fields are asked for, NULL: nobody's."""
    cdef const RouteNode* node = &table.hosts
    cdef const RouteNode* wildcard = NULL
    cdef RouteConf* route
    cdef uint32_t end = host_len
    cdef uint32_t start
    if node.n_children:
        if end and host[end - 1] == c'.':
            end -= 1                    # RFC 3986 3.2.2: a trailing dot only says that the name is complete
        while node != NULL:
            start = end
            while start and host[start - 1] != c'.':
                start -= 1
            node = routes_child(table, node, host + start, end - start)
            if node == NULL:
                break
            if start == 0:
                if node.host_paths != NULL:
                    route = routes_find_path(table, node.host_paths, path, path_len, method_bit, head)
                    if route != NULL:
                        return route
                break
            if node.wildcard_paths != NULL:
                wildcard = node
            end = start - 1
        while wildcard != NULL:
            if wildcard.wildcard_paths != NULL:
                route = routes_find_path(table, wildcard.wildcard_paths, path, path_len, method_bit, head)
                if route != NULL:
                    return route
            wildcard = wildcard.parent
    return routes_find_path(table, &table.any_host_paths, path, path_len, method_bit, head)


cdef inline RouteConf* routes_find_path(const RouteTable* table, const RouteNode* node, const char* path,
                                        uint32_t path_len, uint32_t method_bit, const Head* head) noexcept nogil:
    cdef RouteConf* best = routes_take(node.prefix, method_bit, head)
    cdef RouteConf* route
    cdef uint32_t start = 1
    cdef uint32_t end
    if path_len == 0 or path[0] != c'/':
        return best
    while node.n_children:
        end = start
        while end < path_len and path[end] != c'/':
            end += 1
        node = routes_child(table, node, path + start, end - start)
        if node == NULL:
            return best
        route = routes_take(node.exact, method_bit, head) if end == path_len else NULL
        if route == NULL:
            route = routes_take(node.prefix, method_bit, head)
        if route != NULL:
            best = route
        if end == path_len:
            return best
        start = end + 1
    return best


cdef inline RouteConf* routes_take(const RouteRule* rule, uint32_t method_bit, const Head* head) noexcept nogil:
    """At most 32 steps, and one for each rule that looks at fields: of the others each takes a method that those before
    it do not."""
    while rule != NULL:
        if rule.methods & method_bit and (rule.n_fields == 0 or routes_has_fields(rule.route, head)):
            return rule.route
        rule = rule.following
    return NULL


cdef inline bint routes_has_fields(const RouteConf* route, const Head* head) noexcept nogil:
    cdef uint32_t i
    if head == NULL:
        return False
    for i in range(route.n_fields):
        if not routes_has_field(&route.fields[i], head):
            return False
    return True


cdef inline bint routes_has_field(const FieldMatch* wanted, const Head* head) noexcept nogil:
    cdef const Field* field
    cdef uint32_t i
    for i in range(head.n_fields):
        field = &head.fields[i]
        if field.name_len == wanted.name.len and field.value_len == wanted.value.len \
                and octets_equal_lower(head.base + field.name_at, wanted.name.at, wanted.name.len) \
                and memcmp(head.base + field.value_at, wanted.value.at, wanted.value.len) == 0:
            return True
    return False


cdef inline RouteNode* routes_child(const RouteTable* table, const RouteNode* parent, const char* label,
                                    uint32_t len) noexcept nogil:
    cdef uint64_t hash = routes_hash(table.seed, parent.id, label, len)
    cdef uint64_t slot = hash >> table.slot_shift
    cdef RouteNode* child
    while True:
        child = table.edges[slot].child
        if child == NULL:
            return NULL
        if table.edges[slot].hash == hash and child.parent == parent and child.label.len == len \
                and memcmp(child.label.at, label, len) == 0:
            return child
        slot = (slot + 1) & table.slot_mask


cdef inline uint64_t routes_hash(uint64_t seed, uint32_t parent, const char* at, uint32_t len) noexcept nogil:
    """Eight bytes a step: xor, multiply, fold. Keyed by the table's seed, so that nobody can choose colliding paths."""
    cdef uint64_t hash = routes_mix(seed ^ (<uint64_t>parent << 32 | len))
    cdef uint32_t left = len
    while left > 8:
        hash = routes_mix(hash ^ routes_load8(at))
        at += 8
        left -= 8
    # The last 1..8 bytes in one word. Loads may overlap: the length is in the hash, so no two labels look alike.
    if len >= 8:
        return routes_mix(hash ^ routes_load8(at + left - 8))
    if len >= 4:
        return routes_mix(hash ^ (routes_load4(at) << 32 | routes_load4(at + len - 4)))
    if len:
        return routes_mix(hash ^ (<uint64_t><uint8_t>at[0] << 16 | <uint64_t><uint8_t>at[len >> 1] << 8
                                  | <uint8_t>at[len - 1]))
    return hash


cdef inline uint64_t routes_load8(const char* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)                # unaligned: compiles to one load
    return word


cdef inline uint64_t routes_load4(const char* at) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, at, 4)
    return word


cdef inline uint64_t routes_mix(uint64_t x) noexcept nogil:
    # 2^64 / golden ratio: odd, bits well spread. The fold brings the high product bits down for the next word.
    x *= <uint64_t>0x9E3779B97F4A7C15
    return x ^ (x >> 32)


# --- building -----------------------------------------------------------------------------------------------------

cdef inline RouteTable* routes_build(Arena* arena, const RouteMatch* matches, uint32_t n, uint64_t seed) noexcept nogil:
    """Compile the listed matches. Everything lives in `arena`; returns NULL when memory ran out. Hosts
    are lower-cased already. `seed`: a random number that callers of the proxy do not know."""
    cdef RouteTable* table = <RouteTable*>arena_alloc(arena, sizeof(RouteTable))
    cdef uint64_t labels = 0
    cdef uint64_t slots = 8
    cdef uint32_t i
    if table == NULL:
        return NULL
    for i in range(n):
        labels += routes_count(matches[i].host, c'.') + routes_count(matches[i].path, c'/')
    table.slot_shift = 61
    while slots < labels * 2:
        slots *= 2
        table.slot_shift -= 1
    table.seed = seed
    table.slot_mask = slots - 1
    table.edges = <RouteEdge*>arena_alloc(arena, slots * sizeof(RouteEdge))
    if table.edges == NULL:
        return NULL
    table.hosts.id = 0
    table.any_host_paths.id = 1
    table.n_nodes = 2
    for i in range(n):
        if not routes_insert(arena, table, &matches[i]):
            return NULL
    return table


cdef inline bint routes_insert(Arena* arena, RouteTable* table, const RouteMatch* match) noexcept nogil:
    cdef RouteNode* node = routes_insert_host(arena, table, match)
    cdef RouteRule** rules
    cdef const char* path = match.path.at
    cdef uint32_t len = match.path.len
    cdef uint32_t start = 1
    cdef uint32_t end
    if node == NULL:
        return False
    if match.path_kind == ROUTE_PATH_ANY:
        len = 0
    elif match.path_kind == ROUTE_PATH_PREFIX:
        while len and path[len - 1] == c'/':
            len -= 1                    # "/users/" and "/users" are the same prefix, "/" is any path
    if len and path[0] != c'/':
        return True                     # config refuses it; here it just matches nothing
    while node != NULL and start <= len:
        end = start
        while end < len and path[end] != c'/':
            end += 1
        node = routes_insert_child(arena, table, node, path + start, end - start)
        start = end + 1
    if node == NULL:
        return False
    rules = &node.exact if match.path_kind == ROUTE_PATH_EXACT else &node.prefix
    return routes_insert_rule(arena, rules, match.route)


cdef inline RouteNode* routes_insert_host(Arena* arena, RouteTable* table, const RouteMatch* match) noexcept nogil:
    """The root of the paths of the match's host, made when new; NULL when memory ran out."""
    cdef const char* host = match.host.at
    cdef uint32_t first = 0             # where the labels begin
    cdef uint32_t end = match.host.len
    cdef uint32_t start
    cdef RouteNode* node = &table.hosts
    cdef RouteNode** paths
    if match.host_kind == ROUTE_HOST_WILDCARD:
        while first < end and (host[first] == c'*' or host[first] == c'.'):
            first += 1                  # "*.a.test" and "a.test" both name the suffix
    if end > first and host[end - 1] == c'.':
        end -= 1
    if match.host_kind == ROUTE_HOST_ANY or end == first:
        return &table.any_host_paths
    while True:
        start = end
        while start > first and host[start - 1] != c'.':
            start -= 1
        node = routes_insert_child(arena, table, node, host + start, end - start)
        if node == NULL:
            return NULL
        if start == first:
            break
        end = start - 1
    paths = &node.wildcard_paths if match.host_kind == ROUTE_HOST_WILDCARD else &node.host_paths
    if paths[0] == NULL:
        paths[0] = routes_new_node(arena, table)
    return paths[0]


cdef inline RouteNode* routes_insert_child(Arena* arena, RouteTable* table, RouteNode* parent, const char* label,
                                           uint32_t len) noexcept nogil:
    cdef RouteNode* child = routes_child(table, parent, label, len)
    cdef uint64_t hash
    cdef uint64_t slot
    if child != NULL:
        return child
    child = routes_new_node(arena, table)
    if child == NULL:
        return NULL
    child.parent = parent
    child.label = arena_text(arena, label, len)
    if child.label.at == NULL:
        return NULL
    hash = routes_hash(table.seed, parent.id, label, len)
    slot = hash >> table.slot_shift
    while table.edges[slot].child != NULL:
        slot = (slot + 1) & table.slot_mask
    table.edges[slot].hash = hash
    table.edges[slot].child = child
    parent.n_children += 1
    return child


cdef inline RouteNode* routes_new_node(Arena* arena, RouteTable* table) noexcept nogil:
    cdef RouteNode* node = <RouteNode*>arena_alloc(arena, sizeof(RouteNode))
    if node != NULL:
        node.id = table.n_nodes
        table.n_nodes += 1
    return node


cdef inline bint routes_insert_rule(Arena* arena, RouteRule** rules, RouteConf* route) noexcept nogil:
    """Append, unless earlier rules already take every method of it: it could never be reached."""
    cdef uint32_t methods = route.method_mask if route.method_mask else <uint32_t>0xFFFFFFFF
    cdef uint32_t taken = 0
    cdef RouteRule* rule
    while rules[0] != NULL:
        if rules[0].n_fields == 0:
            taken |= rules[0].methods
        rules = &rules[0].following
    if methods & ~taken == 0:
        return True
    rule = <RouteRule*>arena_alloc(arena, sizeof(RouteRule))
    if rule == NULL:
        return False
    rule.route = route
    rule.methods = methods
    rule.n_fields = route.n_fields
    rules[0] = rule
    return True


cdef inline uint32_t routes_count(Text text, char separator) noexcept nogil:
    """No fewer than the labels of `text`."""
    cdef uint32_t count = 1
    cdef uint32_t i
    for i in range(text.len):
        count += text.at[i] == separator
    return count
