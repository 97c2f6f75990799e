# A request buffer as the endpoint of an attempt takes it: its body in a chunk for HTTP/1, as it is for HTTP/2; marked as
# of HTTP/1 where it rides the mesh's hop, and nowhere else. Sends nothing. Bodies of a told length need no framing, and what follows the buffer is framed as it is relayed (flow).
#
# Endpoints of one cluster may differ in what they speak, so a request is framed when its endpoint is known, and again
# when another gets it.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memmove

from meshcore.engine.buffer cimport Buffer, buffer_return, buffer_take
from meshcore.engine.flow cimport flow_trailers
from meshcore.engine.framing cimport chunk_write_header
from meshcore.engine.mesh_hop cimport mesh_hop_write
from meshcore.engine.state cimport (
    EXCHANGE_ABSOLUTE, EXCHANGE_MARKED, EXCHANGE_MINOR_0, FLOW_CHUNKED, FLOW_DONE, FLOW_STREAM, Exchange, Worker,
)
from meshcore.engine.upstream cimport upstream_marks

cdef enum:
    REFRAME_ROOM_BYTES = 64             # a chunk header, its end and the last chunk


cdef inline int reframe(Worker* worker, Exchange* exchange, int is_http2) noexcept nogil:
    """Make the request ready for the chosen endpoint. Nothing of the buffer was sent to it. 1, or 0 without memory."""
    if exchange.request_buffer == NULL:
        return 1
    if (exchange.flags & EXCHANGE_MARKED != 0) != upstream_marks(exchange) and not reframe_mark(worker, exchange):
        return 0
    if is_http2:
        if exchange.request.framing_out == FLOW_CHUNKED:
            reframe_bare(exchange)
        return 1
    return exchange.request.framing_out != FLOW_STREAM or reframe_chunk(worker, exchange)


cdef inline int reframe_mark(Worker* worker, Exchange* exchange) noexcept nogil:
    """Put the mark before the empty line of the head, or take it out again."""
    cdef char mark[64]
    cdef uint32_t len = <uint32_t>(mesh_hop_write(exchange.flags & EXCHANGE_MINOR_0 == 0,
                                                  exchange.flags & EXCHANGE_ABSOLUTE != 0, mark) - mark)
    cdef Buffer* buffer
    cdef char* at
    if exchange.flags & EXCHANGE_MARKED:
        buffer = exchange.request_buffer
        at = buffer.data + buffer.start + exchange.request_head_bytes - 2 - len
        memmove(at, at + len, <size_t>(buffer.data + buffer.end - at - len))
        buffer.end -= len
        exchange.request_head_bytes -= len
    else:
        buffer = reframe_room(worker, exchange, len)
        if buffer == NULL:
            return 0
        at = buffer.data + buffer.start + exchange.request_head_bytes - 2
        memmove(at + len, at, <size_t>(buffer.data + buffer.end - at))
        memcpy(at, mark, len)
        buffer.end += len
        exchange.request_head_bytes += len
    exchange.flags ^= EXCHANGE_MARKED
    return 1


cdef inline Buffer* reframe_room(Worker* worker, Exchange* exchange, uint32_t n) noexcept nogil:
    """The request buffer, with room for so many octets more. NULL without memory."""
    cdef Buffer* buffer = exchange.request_buffer
    cdef Buffer* larger
    if buffer.size_bytes - buffer.end >= n:
        return buffer
    larger = buffer_take(&worker.buffers, buffer.end - buffer.start + n)
    if larger == NULL:
        return NULL
    memcpy(larger.data, buffer.data + buffer.start, buffer.end - buffer.start)
    larger.end = buffer.end - buffer.start
    buffer_return(&worker.buffers, buffer)
    exchange.request_buffer = larger
    return larger


cdef inline void reframe_bare(Exchange* exchange) noexcept nogil:
    cdef Buffer* buffer = exchange.request_buffer
    cdef char* body = buffer.data + buffer.start + exchange.request_head_bytes
    # All of the body that came is in the buffer, else the request could not be sent again.
    cdef uint32_t body_len = <uint32_t>exchange.request.moved_bytes
    cdef char framed[32]
    exchange.request.framing_out = FLOW_STREAM
    if body_len:
        memmove(body, body + chunk_write_header(framed + 32, body_len), body_len)
    buffer.end = buffer.start + exchange.request_head_bytes + body_len


cdef inline int reframe_chunk(Worker* worker, Exchange* exchange) noexcept nogil:
    """One chunk of what is there; the last chunk and trailers when that was all."""
    cdef Buffer* buffer = exchange.request_buffer
    cdef uint32_t body_len = buffer.end - buffer.start - exchange.request_head_bytes
    cdef uint32_t header
    cdef char framed[32]
    cdef char* at
    cdef const char* trailers = NULL
    cdef uint32_t trailers_len = 0
    if exchange.request.state == FLOW_DONE:
        flow_trailers(&exchange.request, exchange.down, &trailers, &trailers_len)
    buffer = reframe_room(worker, exchange, REFRAME_ROOM_BYTES + trailers_len)
    if buffer == NULL:
        return 0
    exchange.request.framing_out = FLOW_CHUNKED
    at = buffer.data + buffer.start + exchange.request_head_bytes
    if body_len:
        header = chunk_write_header(framed + 32, body_len)
        memmove(at + header, at, body_len)
        memcpy(at, framed + 32 - header, header)
        memcpy(at + header + body_len, b"\r\n", 2)
        at += header + body_len + 2
    if exchange.request.state == FLOW_DONE:
        memcpy(at, b"0\r\n", 3)
        if trailers_len:
            memcpy(at + 3, trailers, trailers_len)
        memcpy(at + 3 + trailers_len, b"\r\n", 2)
        at += 5 + trailers_len
    buffer.end = <uint32_t>(at - buffer.data)
    return 1
