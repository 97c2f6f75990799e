# The handshake of a WebSocket where one side of it has none: over HTTP/2 (RFC 8441) no key is sent and none answered, so
# that a client of HTTP/1 is answered here. Owns the answer's text; what a tunnel carries is nobody's business.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

from meshcore.engine.octets cimport octets_equal_lower
from meshcore.engine.openssl cimport EVP_EncodeBlock, SHA1

cdef enum:
    WEBSOCKET_ACCEPT_BYTES = 28
    WEBSOCKET_KEY_BYTES = 24


cdef inline int websocket_accept(const char* head, uint32_t n, char* accept) noexcept nogil:
    """RFC 6455 4.2.2: what the key in this request head is answered with, into WEBSOCKET_ACCEPT_BYTES + 1. 0: it has none."""
    cdef uint8_t proof[60]
    cdef uint8_t digest[20]
    cdef const char* end = head + n
    cdef const char* line_end
    while head < end:
        line_end = <const char*>memchr(head, 10, end - head)
        if line_end == NULL:
            return 0
        if line_end - head >= 19 + WEBSOCKET_KEY_BYTES and octets_equal_lower(head, "sec-websocket-key: ", 19):
            memcpy(proof, head + 19, WEBSOCKET_KEY_BYTES)
            memcpy(proof + WEBSOCKET_KEY_BYTES, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36)
            SHA1(proof, 60, digest)
            EVP_EncodeBlock(<unsigned char*>accept, digest, 20)
            return 1
        head = line_end + 1
    return 0
