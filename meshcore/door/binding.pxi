# Names as Python sees them: bindings compiled and posted to the workers, names they ask for, names nobody uses any more.
# The thread here takes what workers ask and calls the embedder's function; no request waits for anything else in Python.

import logging as _logging
import select as _select

from meshcore.engine.binding cimport Binding, BindingRef, binding_hash
from meshcore.engine.lookup cimport Ask, Bind
from meshcore.engine.mailbox cimport COMMAND_BIND, COMMAND_TRUST
from meshcore.engine.snapshot cimport TARGET_CLUSTER, TARGET_FIRST, TARGET_SHARE, TargetNode
from meshcore.engine.target_tree cimport TREE_MAX_DEPTH

_names_log = _logging.getLogger("meshcore.names")

cdef enum:
    SWEEP_MS = 250                      # between two looks at names that nobody uses, or whose time is over
    EVICTED_SHARE = 16                  # one in so many names makes room at a time: finding the oldest costs a look at all
    REAP_LEAST = 64                     # replaced bindings that may wait before anybody looks whether they can be freed


cdef class _BindingHandle(_SlotHolder):
    """What one name is bound to, compiled, and each worker's hold on it."""
    cdef Binding* binding
    cdef BindingRef* refs
    cdef uint32_t n_refs
    cdef uint32_t workers_left
    cdef readonly tuple key             # (route, name, overrides)
    cdef readonly object bound          # as it was given
    cdef readonly uint64_t born_ns
    cdef readonly uint64_t lifetime_ns
    cdef uint32_t route_slot

    def __cinit__(self):
        self.binding = NULL
        self.refs = NULL

    def __dealloc__(self):
        if self.binding != NULL:
            arena_free(&self.binding.arena)

    cdef bint is_unused(self):
        return atomic_load_u32(&self.workers_left) == 0

    cdef bint is_over(self, uint64_t now_ns):
        return self.lifetime_ns != 0 and now_ns >= self.born_ns + self.lifetime_ns

    cdef uint64_t last_used_ns(self):
        cdef uint64_t latest = self.born_ns
        cdef uint32_t i
        for i in range(self.n_refs):
            if self.refs[i].last_used_ns > latest:
                latest = self.refs[i].last_used_ns
        return latest


cdef class _PostedBinds:
    """Answers on their way to the workers: kept until every one has taken them."""
    cdef Engine engine
    cdef Command* commands
    cdef Bind* binds
    cdef list kept                      # keys and handles that the binds point at

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.commands = NULL
        self.binds = NULL
        self.kept = []

    def __dealloc__(self):
        free(self.commands)
        free(self.binds)

    cdef bint is_taken(self):
        cdef uint32_t i
        for i in range(self.engine.n_workers):
            if not atomic_load_u32(&self.commands[i].done) and not atomic_load_u32(&self.engine.workers[i].stopped):
                return False
        return True


cdef class Names:
    """All names of one engine: bound, asked for, replaced and not yet free."""
    cdef Engine engine
    cdef dict bound                     # key -> _BindingHandle
    cdef list retired                   # replaced: freed once no worker holds them
    cdef uint32_t reap_at
    cdef list posted
    cdef dict asked                     # key -> when
    cdef dict contexts                  # name -> (index, TlsContext)
    cdef object thread
    cdef uint32_t stopping
    cdef readonly object on_lookup
    cdef readonly object on_idle
    cdef object make_ask                # what a function is given: (route, name, overrides, authority, method, path, destination)
    cdef dict failed                    # plan of what a name is bound to for a moment when nobody could be asked
    cdef uint32_t most
    cdef uint64_t idle_ns
    cdef uint64_t walk_at_ns            # no name of `bound` is over, or idle for long, before
    cdef uint64_t told_second
    cdef readonly uint64_t lookups
    cdef readonly uint64_t evicted
    cdef uint64_t changes               # of `bound`, so far

    def __cinit__(self, Engine engine, make_ask, dict failed not None):
        self.engine = engine
        self.make_ask = make_ask
        self.failed = failed
        self.bound = {}
        self.retired = []
        self.reap_at = REAP_LEAST
        self.posted = []
        self.asked = {}
        self.contexts = {}
        self.most = 16384
        self.idle_ns = 600_000_000_000

    def stats(self) -> dict:
        """Routes and clusters that bindings name, as Engine.stats has those of the configuration. Bindings that use one
        cluster share its row, and its endpoints are those of all of them. The lock is taken for one row at a time: whoever
        binds a name does not wait for ten thousand others to be counted."""
        cdef _BindingHandle handle
        routes = {}
        clusters = {}
        out = {"routes": [], "clusters": []}
        with self.engine.lock:
            handles = list(self.bound.values())
            own = {slot for _, slot in self.engine._current().routes}
        for handle in handles:
            for name, slot in handle.routes:
                if slot not in own:
                    routes.setdefault(slot, (name, []))[1].append(handle)
            for name, slot, rows in handle.clusters:
                clusters.setdefault(slot, (name, []))[1].append((handle, rows))
        for slot, (name, holders) in routes.items():
            with self.engine.lock:
                # A slot whose holders are all gone may be another's by now.
                if any([holder.held for holder in holders]):
                    out["routes"].append(self.engine._route_stats(name, slot))
        for slot, (name, holders) in clusters.items():
            with self.engine.lock:
                rows = {row[2]: row for holder, rows in holders if holder.held for row in rows}
                if any([holder.held for holder, _ in holders]):
                    out["clusters"].append(self.engine._cluster_stats(name, slot, list(rows.values())))
        return out

    # --- life ---------------------------------------------------------------------------------------------------

    def configure(self, *, on_lookup=None, on_idle=None, uint32_t most, uint64_t idle_ns) -> None:
        """Take the functions and limits of a configuration that is applied; drop names of routes that look nothing up any more."""
        self.on_lookup = on_lookup
        self.on_idle = on_idle
        self.most = most
        self.idle_ns = idle_ns
        self.walk_at_ns = 0
        with self.engine.lock:
            lookups = self.engine._current().lookups
            gone = [key for key in self.bound if key[0] not in lookups]
            self._drop(gone)
            if (lookups or self.bound) and self.thread is None:
                self.thread = _threading.Thread(target=self._run, name="meshcore-names", daemon=True)
                self.thread.start()
        self._tell_idle(gone)

    def stop(self) -> None:
        if self.thread is not None:
            atomic_store_u32(&self.stopping, 1)
            sys_notify(self.engine.lookup_fd)
            if self.thread is not _threading.current_thread():
                self.thread.join()
            self.thread = None

    def _run(self) -> None:
        poller = _select.poll()
        poller.register(self.engine.lookup_fd, _select.POLLIN)
        cdef uint64_t sweep_at_ns = 0
        while not atomic_load_u32(&self.stopping):
            poller.poll(SWEEP_MS)
            if atomic_load_u32(&self.stopping):
                return
            sys_drain_notify(self.engine.lookup_fd)
            try:
                self._answer(stack_take(&self.engine.lookup_stack))
                if sys_now_ns() >= sweep_at_ns:
                    self._sweep()
                    sweep_at_ns = sys_now_ns() + <uint64_t>SWEEP_MS * 1000000
            except Exception:
                self._tell_error("looking after names failed (told once a second)")

    cdef _tell_error(self, str message):
        cdef uint64_t second = sys_now_ns() // 1000000000
        if second != self.told_second:
            self.told_second = second
            _names_log.exception(message)

    # --- asked for ----------------------------------------------------------------------------------------------

    cdef _answer(self, StackNode* node):
        cdef StackNode* first = node
        cdef Ask* ask
        cdef _BindingHandle known
        cdef uint64_t now_ns
        if node == NULL:
            return
        now_ns = sys_now_ns()
        batch = []
        try:
            with self.engine.lock:
                by_slot = {slot: (name, timeout_ns) for name, (slot, timeout_ns) in self.engine._current().lookups.items()}
                while node != NULL:
                    ask = <Ask*>node
                    node = node.next
                    found = by_slot.get(ask.route_slot)
                    if found is None:
                        continue        # of a route that left: its exchanges end by their deadline
                    words = _ask_words(ask)
                    key = (found[0], words[0], words[1])
                    known = self.bound.get(key)
                    if known is not None and not known.is_over(now_ns):
                        continue        # its answer is on the way to that worker
                    if now_ns < self.asked.get(key, 0):
                        continue        # another worker asked, too
                    self.asked[key] = now_ns + <uint64_t>found[1]
                    batch.append(self.make_ask(found[0], *words))
        finally:
            _free_asks(first)
        if not batch:
            return
        self.lookups += len(batch)
        try:
            if self.on_lookup is None:
                raise LookupError("no function answers: Proxy.on_lookup was not called")
            self.on_lookup(batch)
        except Exception:
            self._tell_error("on_lookup raised; its names answer lookup_failed for a second (told once a second)")
            self.bind([((one.route, one.name, one.overrides), self.failed, None, 1_000_000_000) for one in batch])

    cdef _sweep(self):
        cdef uint64_t now_ns = sys_now_ns()
        idle = []
        with self.engine.lock:
            if now_ns >= self.walk_at_ns:
                idle = self._walk(now_ns)
                self._drop(idle)
            self._reap()
            for key in [key for key, until_ns in self.asked.items() if now_ns >= <uint64_t>until_ns]:
                del self.asked[key]
        self._tell_idle(idle)

    cdef list _walk(self, uint64_t now_ns):
        """Keys of names that are over or idle. Says when to look again: with ten thousand names a look takes a millisecond and more."""
        cdef _BindingHandle handle
        cdef uint64_t ends_ns
        cdef uint64_t over_ns = now_ns + self.idle_ns
        cdef uint64_t idle_ns = over_ns
        found = []
        for key, handle in self.bound.items():
            ends_ns = handle.last_used_ns() + self.idle_ns
            if handle.is_over(now_ns) or now_ns > ends_ns:
                found.append(key)
                continue
            idle_ns = min(idle_ns, ends_ns)
            if handle.lifetime_ns:
                over_ns = min(over_ns, handle.born_ns + handle.lifetime_ns)
        # Ten minutes of silence may be ten more seconds; a lifetime is kept.
        self.walk_at_ns = min(over_ns, max(idle_ns, now_ns + self.idle_ns // 64))
        return found

    cdef _tell_idle(self, list keys):
        if keys and self.on_idle is not None:
            try:
                self.on_idle(keys)
            except Exception:
                self._tell_error("on_idle raised (told once a second)")

    # --- bound --------------------------------------------------------------------------------------------------

    def bind(self, list answers) -> None:
        """[(key, plan, as it was given, lifetime in ns or 0)]: bind these names, in one hand-over. Raises with nothing changed.

        plan: see meshcore.bindings. The handles that were there are kept by whoever began with them.
        """
        cdef _BindingHandle handle
        handles = []
        evicted = []
        with self.engine.lock:
            if not self.engine.running:
                raise EngineLimitError("the engine does not run")
            try:
                for key, plan, bound, lifetime_ns in answers:
                    handle = self._build(key, plan)
                    handle.bound = bound
                    handle.lifetime_ns = lifetime_ns
                    handles.append(handle)
            except BaseException:
                for handle in handles:
                    handle.release()
                raise
            for handle in handles:
                self.walk_at_ns = min(self.walk_at_ns, handle.born_ns + min(handle.lifetime_ns or self.idle_ns, self.idle_ns))
                for kind, slot in handle.fresh:
                    self.engine._make_state(kind, slot)
            keys = {key for key, _, _, _ in answers}
            # Not keys - self.bound.keys(): that walks all that is bound.
            new = len([key for key in keys if key not in self.bound])
            if len(self.bound) + new > self.most:
                evicted = self._oldest(len(self.bound) + new - self.most, keys)
                self.evicted += len(evicted)
            self._post(list(zip([key for key, _, _, _ in answers], handles)) + [(key, None) for key in evicted])
        self._tell_idle(evicted)

    def unbind(self, list keys) -> None:
        """These names mean nothing any more: the next request asks."""
        with self.engine.lock:
            self._drop([key for key in keys if key in self.bound])
            for key in keys:
                self.asked.pop(key, None)

    def rows(self) -> list:
        """(key, as it was given, age in ns, since it was used in ns, lifetime in ns) of every bound name."""
        cdef _BindingHandle handle
        cdef uint64_t now_ns = sys_now_ns()
        out = []
        with self.engine.lock:
            for key, handle in self.bound.items():
                if not handle.is_over(now_ns):
                    out.append((key, handle.bound, now_ns - handle.born_ns, now_ns - min(now_ns, handle.last_used_ns()),
                                handle.lifetime_ns))
        return out

    cdef list _oldest(self, uint64_t wanted, set kept):
        cdef _BindingHandle handle
        ages = []
        for key, handle in self.bound.items():
            if key not in kept:
                ages.append((handle.last_used_ns(), key))
        ages.sort()
        return [key for _, key in ages[:max(<size_t>wanted, len(ages) // <size_t>EVICTED_SHARE)]]

    cdef _drop(self, list keys):
        if keys and self.engine.running:
            self._post([(key, None) for key in keys])

    cdef _post(self, list changes):
        """Under the lock: [(key, its new handle or None)] to every worker."""
        cdef _PostedBinds posted = _PostedBinds(self.engine)
        cdef _BindingHandle handle
        cdef Bind* bind
        cdef bytes octets
        cdef uint32_t n = <uint32_t>len(changes)
        cdef uint32_t i
        cdef uint32_t w
        self.changes += 1
        posted.commands = <Command*>calloc(self.engine.n_workers, sizeof(Command))
        posted.binds = <Bind*>calloc(self.engine.n_workers * <size_t>n, sizeof(Bind))
        if posted.commands == NULL or posted.binds == NULL:
            raise MemoryError
        for i, (key, handle) in enumerate(changes):
            before = self.bound.pop(key, None)
            if before is not None:
                self.retired.append(before)
            slot = (<_BindingHandle>before).route_slot if handle is None else handle.route_slot
            octets = _octets_of(key)
            posted.kept.append(octets)
            for w in range(self.engine.n_workers):
                bind = &posted.binds[w * <size_t>n + i]
                bind.key = octets
                bind.key_len = <uint32_t>len(octets)
                bind.name_len = <uint32_t>len(key[1].encode("latin-1"))
                bind.route_slot = slot
                bind.hash = binding_hash(&self.engine.workers[w].bindings, slot, bind.key, bind.key_len)
                if handle is not None:
                    bind.ref = &handle.refs[w]
                    bind.lifetime_ns = handle.lifetime_ns
            if handle is not None:
                self.bound[key] = handle
                self.asked.pop(key, None)
                posted.kept.append(handle)
        for w in range(self.engine.n_workers):
            posted.commands[w].kind = COMMAND_BIND
            posted.commands[w].binds = posted.binds + w * <size_t>n
            posted.commands[w].n_binds = n
            mailbox_post(self.engine.workers[w], &posted.commands[w])
        self.posted.append(posted)
        if len(self.retired) + len(self.posted) >= self.reap_at:
            self._reap()

    cdef _reap(self):
        # Under the lock. What no worker holds gives back its memory and its slots.
        cdef _BindingHandle handle
        cdef _PostedBinds posted
        self.posted = [posted for posted in self.posted if not posted.is_taken()]
        kept = []
        for handle in self.retired:
            if handle.is_unused() and not self.engine._has_sessions(handle):
                self.engine._return_histograms(handle)
                handle.release()
            else:
                kept.append(handle)
        self.retired = kept
        self.reap_at = max(<uint32_t>REAP_LEAST, 2 * <uint32_t>(len(kept) + len(self.posted)))

    # --- contexts -----------------------------------------------------------------------------------------------

    def set_context(self, str name not None, TlsContext context not None) -> None:
        """A TLS context that endpoints of bindings name; it takes the place of one of that name from the next handshake on."""
        cdef Command* commands
        cdef uint32_t i
        with self.engine.lock:
            if not self.engine.running:
                raise EngineLimitError("the engine does not run")
            known = self.contexts.get(name)
            if known is None and len(self.contexts) == MAX_TLS_CONTEXTS:
                raise EngineLimitError(f"more than {MAX_TLS_CONTEXTS} TLS contexts at a time")
            index = len(self.contexts) if known is None else known[0]
            commands = <Command*>calloc(self.engine.n_workers, sizeof(Command))
            if commands == NULL:
                raise MemoryError
            for i in range(self.engine.n_workers):
                commands[i].kind = COMMAND_TRUST
                commands[i].context = index
                # Safety: each worker holds one reference of its own.
                SSL_CTX_up_ref(context.context)
                commands[i].tls = context.context
                mailbox_post(self.engine.workers[i], &commands[i])
            self.contexts[name] = (index, context)
            self.engine._wait(commands)

    # --- compiling ----------------------------------------------------------------------------------------------

    cdef _BindingHandle _build(self, tuple key, dict plan):
        cdef _BindingHandle handle = _BindingHandle()
        cdef Arena arena
        cdef Binding* binding
        cdef dict slots = self.engine.slots
        cdef uint32_t i
        found = self.engine._current().lookups.get(key[0])
        if found is None:
            raise LookupError(f"no route '{key[0]}' with lookup")
        arena.head = NULL
        arena.total_bytes = 0
        binding = <Binding*>_alloc(&arena, sizeof(Binding))
        try:
            handle.key = key
            handle.born_ns = sys_now_ns()
            handle.route_slot = _hold(handle, slots, "routes", key[0])     # keeps its number: it is a part of the table's key
            handle.refs = <BindingRef*>_alloc(&arena, self.engine.n_workers * sizeof(BindingRef))
            _fill_binding(&arena, binding, plan, key[0], handle, self)
        except BaseException:
            handle.release()
            arena_free(&arena)
            raise
        binding.arena = arena
        handle.binding = binding
        handle.n_refs = handle.workers_left = self.engine.n_workers
        for i in range(self.engine.n_workers):
            handle.refs[i].binding = binding
            handle.refs[i].workers_left = &handle.workers_left
        return handle


cdef int _fill_binding(Arena* arena, Binding* out, dict plan, str route_name, _BindingHandle handle, Names names) except -1:
    cdef dict slots = names.engine.slots
    cdef dict clusters = {}
    cdef uint32_t i
    out.falls_back = plan["falls_back"]
    out.n_clusters = <uint32_t>len(plan["clusters"])
    out.clusters = <ClusterConf*>_alloc(arena, sizeof(ClusterConf) * out.n_clusters)
    for i, row in enumerate(plan["clusters"]):
        for endpoint in row["endpoints"]:
            if endpoint["tls"] is not None and endpoint["tls"] not in names.contexts:
                raise LookupError(f"no TLS context '{endpoint['tls']}': call set_tls_context first")
            endpoint["context"] = 0 if endpoint["tls"] is None else 1 + names.contexts[endpoint["tls"]][0]
        _fill_cluster(arena, &out.clusters[i], row, handle, slots)
        out.clusters[i].is_nothing = row["name"] == "$"
        clusters[row["name"]] = <size_t>&out.clusters[i]
    out.n_confs = <uint32_t>len(plan["routes"])
    out.confs = <RouteConf*>_alloc(arena, sizeof(RouteConf) * out.n_confs)
    for i, row in enumerate(plan["routes"]):
        # Unnamed ones count for the route that looks up.
        row = {**row, "key": ("bound", row["name"]) if row["name"] else route_name}
        tree = row["tree"]
        _fill_route(arena, &out.confs[i], row, i, clusters, handle, slots)
        if tree is not None:
            out.confs[i].tree = <TargetNode*>_alloc(arena, sizeof(TargetNode))
            leaves = [0]
            _fill_tree(arena, out.confs[i].tree, tree, clusters, leaves, 0)
        if row["refuses_for"]:
            out.confs[i].allow_connect = 1
            if row["answer"] is None:
                out.confs[i].refuses_for = _reason_of(row["refuses_for"])
            else:
                out.confs[i].direct = <DirectResponse*>_alloc(arena, sizeof(DirectResponse))
                _fill_direct(arena, out.confs[i].direct, row["answer"], _reason_of(row["refuses_for"]))
    if plan["takes_all"]:
        out.only = out.confs
    else:
        out.routes = _build_table(arena, out.confs, [(i, row["match"]) for i, row in enumerate(plan["routes"])],
                                  names.engine.seed)


cdef int _fill_tree(Arena* arena, TargetNode* out, tuple tree, dict clusters, list leaves, uint32_t depth) except -1:
    """tree: ("cluster", name), ("first", [trees]) or ("share", [(weight, tree)])."""
    cdef uint32_t i = 0
    kind, content = tree
    if depth > TREE_MAX_DEPTH:
        raise ValueError(f"a tree of more than {TREE_MAX_DEPTH} levels")
    if kind == "cluster":
        out.kind = TARGET_CLUSTER
        out.cluster = <ClusterConf*><size_t>clusters[content]
        out.leaf = min(leaves[0], 255)
        leaves[0] += 1
        return 0
    out.kind = TARGET_FIRST if kind == "first" else TARGET_SHARE
    out.n_children = <uint32_t>len(content)
    out.children = <TargetNode*>_alloc(arena, sizeof(TargetNode) * out.n_children)
    for one in content:
        weight, child = (1, one) if kind == "first" else one
        _fill_tree(arena, &out.children[i], child, clusters, leaves, depth + 1)
        out.children[i].weight = weight
        i += 1


cdef dict _reason_numbers = {reason_name[i].decode().lower(): i for i in range(REASON_COUNT)}

cdef int _reason_of(str name) except -1:
    return _reason_numbers[name]


cdef bytes _octets_of(tuple key):
    """As the workers write it: name, and, when there are overrides, a NUL and those."""
    return key[1].encode("latin-1") + (b"\0" + key[2].encode("latin-1") if key[2] else b"")


cdef tuple _ask_words(const Ask* ask):
    # (name, overrides, authority, method, path, destination)
    cdef const char* at = <const char*>ask + sizeof(Ask)
    cdef bytes key = at[:ask.key_len]
    cdef const char* authority = at + ask.key_len
    cdef const char* method = authority + ask.authority_len
    cdef const char* path = method + ask.method_len
    cdef const char* destination = path + ask.path_len
    return (key[:ask.name_len].decode("latin-1"), key[ask.name_len + 1:].decode("latin-1"),
            authority[:ask.authority_len].decode("latin-1"), method[:ask.method_len].decode("latin-1"),
            path[:ask.path_len].decode("latin-1"), destination[:ask.destination_len].decode("latin-1"))


cdef void _free_asks(StackNode* node):
    cdef StackNode* following
    while node != NULL:
        following = node.next
        free(node)
        node = following
