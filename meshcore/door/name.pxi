# The rooms of names for tests: the name of a head, a worker's table of bound names. Traffic passes by them elsewhere.

from meshcore.engine.binding cimport BindingTable, BoundName, binding_add, binding_find, binding_key, binding_remove
from meshcore.engine.name cimport Name, name_of_request


def name_of(dict lookup not None, bytes head not None, *, bint is_secure=False, bytes destination=b"", bint is_trusted=False,
            uint32_t most_bytes=1024):
    """(name, overrides) of a request by a lookup as the plan has it, or None. The head must be whole."""
    cdef _HeadReading reading = _HeadReading()
    cdef LookupConf conf
    cdef Arena arena
    cdef Text address
    cdef Name name
    cdef bytearray out = bytearray(most_bytes)
    reading.read([head], False, None, 0, False)
    if reading.code != HEAD_DONE:
        raise ValueError(f"not a complete head: {reading.verdict()}")
    arena.head = NULL
    arena.total_bytes = 0
    memset(&conf, 0, sizeof(conf))
    address.at = PyBytes_AS_STRING(destination)
    address.len = <uint32_t>len(destination)
    try:
        _fill_lookup(&arena, &conf, lookup)
        name = name_of_request(&conf, &reading.head, is_secure, address, is_trusted, <char*>out, most_bytes)
    finally:
        arena_free(&arena)
    return (bytes(out[:name.name_len]), bytes(out[name.name_len:name.len])) if name.len else None


cdef class BindingTableDoor:
    """One table. Hashes are chosen by the test, so that names can be made to meet in one bucket."""
    cdef BindingTable table

    def __cinit__(self):
        if not binding_table_init(&self.table, 1):
            raise MemoryError

    def __dealloc__(self):
        binding_table_free(&self.table)

    def add(self, uint64_t hash, uint32_t route_slot, bytes key not None) -> None:
        if binding_add(&self.table, hash, route_slot, PyBytes_AS_STRING(key), <uint32_t>len(key), <uint32_t>len(key)) == NULL:
            raise MemoryError

    def find(self, uint64_t hash, uint32_t route_slot, bytes key not None) -> bytes | None:
        """The key as the table has it."""
        cdef BoundName* found = binding_find(&self.table, hash, route_slot, PyBytes_AS_STRING(key), <uint32_t>len(key))
        return None if found == NULL else binding_key(found)[:found.key_len]

    def remove(self, uint64_t hash, uint32_t route_slot, bytes key not None) -> None:
        """It must be there."""
        binding_remove(&self.table, binding_find(&self.table, hash, route_slot, PyBytes_AS_STRING(key), <uint32_t>len(key)))

    def hash_of(self, uint32_t route_slot, bytes key not None) -> int:
        return binding_hash(&self.table, route_slot, PyBytes_AS_STRING(key), <uint32_t>len(key))

    @property
    def count(self) -> int:
        return self.table.n_names
