# Reading a head: from where it was read when it comes whole, from the connection's own while it is partial.
# Owns where the bytes of a head lie; the parser's verdict is its caller's to act on.
#
# A head that arrives in one read is parsed where it was read and never copied. Only a partial one gets a buffer and a
# parser of its own; the parser then goes on where it stopped, so a head of n bytes costs n, however it is sliced.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport malloc
from libc.string cimport memmove

from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return, buffer_take
from meshcore.engine.conn cimport conn_recv, conn_recv_anywhere
from meshcore.engine.head cimport HeadParser, head_parser_reset
from meshcore.engine.state cimport CONN_ERROR, CONN_OK, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, Conn, Worker

cdef enum InputCode:
    INPUT_READY = 0                     # bytes at *at, not parsed yet or newly grown
    INPUT_AGAIN = 2                     # as ConnCode
    INPUT_EOF = 3
    INPUT_ERROR = 4
    INPUT_NO_MEMORY = 5


cdef inline int input_held(Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """Bytes read before and not consumed, without reading more."""
    if conn.in_buffer == NULL:
        return INPUT_AGAIN
    at[0] = conn.in_buffer.data + conn.in_buffer.start
    n[0] = conn.in_buffer.end - conn.in_buffer.start
    return INPUT_READY


cdef inline int input_read(Worker* worker, Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """Read once; on INPUT_READY *at holds everything not consumed so far, *n bytes of it."""
    cdef Buffer* buffer = conn.in_buffer
    cdef Buffer* larger
    cdef uint32_t got
    cdef uint32_t held
    cdef int code
    if not conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        return INPUT_AGAIN
    if buffer == NULL:
        return conn_recv_anywhere(worker, conn, at, n)
    held = buffer.end - buffer.start
    if buffer.size_bytes - buffer.end < 1024:
        if buffer.start >= 1024:
            memmove(buffer.data, buffer.data + buffer.start, held)
            buffer.start = 0
            buffer.end = held
        else:
            larger = buffer_take(&worker.buffers, held + 4096)
            if larger == NULL:
                return INPUT_NO_MEMORY
            larger.end = held
            memmove(larger.data, buffer.data + buffer.start, held)
            buffer_return(&worker.buffers, buffer)
            conn.in_buffer = buffer = larger
    code = conn_recv(worker, conn, buffer.data + buffer.end, buffer.size_bytes - buffer.end, &got)
    if code != CONN_OK:
        return code
    buffer.end += got
    at[0] = buffer.data + buffer.start
    n[0] = buffer.end - buffer.start
    return INPUT_READY


cdef inline HeadParser* input_parser(Worker* worker, Conn* conn, int is_response) noexcept nogil:
    """The parser for what input_read returned: the connection's own inside a partial head, else the worker's, fresh."""
    if conn.parser != NULL:
        return conn.parser
    head_parser_reset(worker.parser, worker.llhttp, is_response)
    return worker.parser


cdef inline int input_keep_partial(Worker* worker, Conn* conn, char* at, uint32_t n) noexcept nogil:
    """The head is not complete: keep its bytes and a parser for the rest. 1, or 0 without memory.

    The caller parses the kept bytes once more with the new parser (input_parser), so that no progress has to be
    copied between parsers that point into themselves.
    """
    cdef Buffer* buffer
    if conn.in_buffer == NULL:
        buffer = buffer_append(&worker.buffers, NULL, at, n)
        if buffer == NULL:
            return 0
        conn.in_buffer = buffer
    if conn.parser == NULL:
        conn.parser = <HeadParser*>malloc(sizeof(HeadParser))
        if conn.parser == NULL:
            return 0
    return 1
