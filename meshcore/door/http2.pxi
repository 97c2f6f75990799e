# The door to what HTTP/2 and gRPC say with fields: shows blocks as text, text as fields, their coding, and the words of a call
# to tests as plain Python values. Traffic never passes the functions here.

from libc.stdint cimport int32_t, uint8_t, uint32_t

from meshcore.engine.base64 cimport (
    BASE64_MALFORMED, Base64, base64_begin, base64_decode, base64_encode, base64_end,
)
from meshcore.engine.buffer cimport BufferPool, buffer_pool_free
from meshcore.engine.grpc cimport grpc_is_request, grpc_status_of_head, grpc_status_of_trailers, grpc_timeout_ns
from meshcore.engine.http2_fields cimport (
    http2_fields_of_request, http2_fields_of_response, http2_fields_of_trailers,
)
from meshcore.engine.http2_head cimport (
    BLOCK_REQUEST, BLOCK_RESPONSE, BLOCK_TRAILERS, HeadBlock, block_begin, block_end, block_field, block_free,
)
from meshcore.engine.hpack_read cimport (
    HPACK_DONE, HPACK_FIELD, HPACK_MORE, HPACK_SCRATCH_BYTES, HpackField, HpackReader, hpack_read,
)
from meshcore.engine.hpack_table cimport hpack_table_free, hpack_table_init
from meshcore.engine.hpack_write cimport (
    HPACK_FIELD_OVERHEAD_BYTES, HPACK_SIZES_BYTES, Http2Field, HpackWriter, hpack_begin, hpack_limit, hpack_write,
    hpack_writer_init,
)
from meshcore.engine.fields cimport field_id
from meshcore.engine.huffman cimport huffman_decode

cdef dict BLOCK_KINDS = {"request": BLOCK_REQUEST, "response": BLOCK_RESPONSE, "trailers": BLOCK_TRAILERS}


def http2_block_text(str kind, list fields, bint ends=False, bint has_body_text=False, uint32_t limit_bytes=32768):
    """("done" | a reason, the text or b"", bytes its buffers still held when it was given back)."""
    cdef BufferPool pool
    cdef HeadBlock block
    cdef Rng rng
    cdef uint8_t reason
    cdef bytes name
    cdef bytes value
    memset(&pool, 0, sizeof(pool))
    pool.limit_bytes = 1 << 24
    rng_seed(&rng, 1)
    block_begin(&block, BLOCK_KINDS[kind], limit_bytes)
    for name, value in fields:
        block_field(&pool, &block, PyBytes_AS_STRING(name), <uint32_t>len(name), PyBytes_AS_STRING(value),
                    <uint32_t>len(value), NULL, &rng)
    reason = block_end(&pool, &block, ends, has_body_text, &rng)
    text = b"" if reason or block.text == NULL else block.text.data[block.text.start:block.text.end]
    block_free(&pool, &block)
    left = pool.in_use_bytes
    buffer_pool_free(&pool)
    return (reason_name[reason].decode() if reason else "done"), text, left


def http2_text_fields(str kind, bytes text, bint secure=False, bint websocket=False):
    """Fields of a head or of trailer lines: [(name, value)], or None: too many."""
    cdef Http2Field fields[256]
    cdef uint32_t n
    cdef uint32_t used
    cdef uint32_t i
    cdef uint32_t size = <uint32_t>len(text)
    cdef char* copy = <char*>malloc(size + 1)         # names are put into lower case where they lie
    if copy == NULL:
        raise MemoryError
    memcpy(copy, PyBytes_AS_STRING(text), size)
    if kind == "request":
        n = http2_fields_of_request(copy, size, secure, websocket, fields, &used)
    elif kind == "response":
        n = http2_fields_of_response(copy, size, fields, &used)
    else:
        n = http2_fields_of_trailers(copy, size, fields)
    found = [((<char*>fields[i].name)[:fields[i].name_len], (<char*>fields[i].value)[:fields[i].value_len])
             for i in range(n)]
    free(copy)
    return found if n else None


def huffman_text(bytes octets, uint32_t room=65536):
    """What they stand for, or None."""
    cdef char* out = <char*>malloc(room + 1)
    cdef int32_t n
    if out == NULL:
        raise MemoryError
    n = huffman_decode(out, room, <const uint8_t*>PyBytes_AS_STRING(octets), <uint32_t>len(octets))
    text = None if n < 0 else out[:n]
    free(out)
    return text


cdef class HpackReading:
    """One side's reader of header blocks."""
    cdef HpackReader reader
    cdef char* scratch

    def __cinit__(self):
        hpack_table_init(&self.reader.table)
        self.scratch = <char*>malloc(HPACK_SCRATCH_BYTES)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        hpack_table_free(&self.reader.table)
        free(self.scratch)

    def read(self, list pieces):
        """("done" | "more" | "broken", the fields) of one block; pieces come one after another, as frames do."""
        cdef bytes held = b""
        cdef bytes piece
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef HpackField field
        cdef int code = HPACK_DONE
        fields = []
        self.reader.has_begun = 0
        for piece in pieces:
            held += piece
            at = <const uint8_t*>PyBytes_AS_STRING(held)
            end = at + len(held)
            code = hpack_read(&self.reader, &at, end, self.scratch, &field)
            while code == HPACK_FIELD:
                fields.append((field.name[:field.name_len], field.value[:field.value_len]))
                code = hpack_read(&self.reader, &at, end, self.scratch, &field)
            held = held[len(held) - (end - at):]
            if code != HPACK_DONE and code != HPACK_MORE:
                break
        return {HPACK_DONE: "done", HPACK_MORE: "more"}.get(code, "broken"), fields

    @property
    def table_bytes(self):
        return self.reader.table.used_bytes


cdef class HpackWriting:
    """One side's writer of header blocks."""
    cdef HpackWriter writer

    def __cinit__(self):
        hpack_writer_init(&self.writer)

    def __dealloc__(self):
        hpack_table_free(&self.writer.table)

    def limit(self, uint32_t limit_bytes):
        """The other side told the size of its table."""
        hpack_limit(&self.writer, limit_bytes)

    def write(self, list fields):
        """The block of [(name, value)]."""
        cdef Http2Field field
        cdef bytes name
        cdef bytes value
        cdef char* out
        cdef char* end
        room = HPACK_SIZES_BYTES + sum(len(name) + len(value) + HPACK_FIELD_OVERHEAD_BYTES for name, value in fields)
        out = <char*>malloc(room)
        if out == NULL:
            raise MemoryError
        end = hpack_begin(&self.writer, out)
        for name, value in fields:
            field.name = PyBytes_AS_STRING(name)
            field.name_len = <uint32_t>len(name)
            field.value = PyBytes_AS_STRING(value)
            field.value_len = <uint32_t>len(value)
            field.id = field_id(field.name, field.name_len)
            field.static_at = PSEUDO_PLACES.get(name, 0)
            end = hpack_write(&self.writer, end, &field)
        block = out[:end - out]
        free(out)
        return block


cdef dict PSEUDO_PLACES = {b":authority": 1, b":method": 2, b":path": 4, b":scheme": 6, b":status": 8}


def grpc_words(bytes head, bint is_response=False):
    """What a head says of a call: {"is_call", "timeout_ns"} or {"status"}; 255: none. None: no valid head."""
    cdef _HeadReading reading = _HeadReading()
    reading.read([head], is_response, None, 0, 0)
    if reading.code != HEAD_DONE:
        return None
    if is_response:
        return {"status": grpc_status_of_head(&reading.head)}
    return {"is_call": bool(grpc_is_request(&reading.head)), "timeout_ns": grpc_timeout_ns(&reading.head)}


def grpc_trailers_status(bytes text):
    return grpc_status_of_trailers(PyBytes_AS_STRING(text), <uint32_t>len(text))


def base64_pieces(list pieces, bint decodes):
    """The pieces decoded, or encoded, as they come: all of it, or None where they are malformed or end within a block."""
    cdef Base64 state
    cdef bytes piece
    cdef char* room
    cdef uint32_t n
    cdef bytearray whole = bytearray()
    base64_begin(&state)
    for piece in pieces:
        room = <char*>malloc(len(piece) * 2 + 4)
        if room == NULL:
            raise MemoryError
        if decodes:
            memcpy(room, PyBytes_AS_STRING(piece), len(piece))
            n = base64_decode(&state, room, <uint32_t>len(piece))
        else:
            n = base64_encode(&state, room, PyBytes_AS_STRING(piece), <uint32_t>len(piece))
        if n != BASE64_MALFORMED:
            whole += room[:n]
        free(room)
        if n == BASE64_MALFORMED:
            return None
    if decodes:
        return None if state.place else bytes(whole)
    room = <char*>malloc(4)
    n = base64_end(&state, room)
    whole += room[:n]
    free(room)
    return bytes(whole)
