# The door to what first octets mean: what a client speaks, whom its ClientHello asks for. For tests; traffic never passes here.

from libc.stdint cimport uint32_t

from meshcore.engine.client_hello cimport HELLO_WHOLE, Hello, hello_read
from meshcore.engine.detect cimport detect_read


def detect_protocol(bytes data) -> str:
    """What a connection that begins with these octets speaks: more, http1, http2, tls or other."""
    cdef char* exact = _exact(data)
    code = detect_read(exact, <uint32_t>len(data))
    free(exact)
    return ("more", "http1", "http2", "tls", "other")[code]


cdef char* _exact(bytes data) except NULL:
    """A copy with nothing behind it: a sanitizer finds a read beyond its end."""
    cdef char* copy = <char*>malloc(len(data) if len(data) else 1)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, PyBytes_AS_STRING(data), len(data))
    return copy


def client_hello(bytes data):
    """("more" | "whole" | "none", the name a TLS client asks for or b"")."""
    cdef Hello hello
    cdef char* exact = _exact(data)
    code = hello_read(exact, <uint32_t>len(data), &hello)
    free(exact)
    return ("more", "whole", "none")[code], hello.name[:hello.name_len] if code == HELLO_WHOLE else b""
