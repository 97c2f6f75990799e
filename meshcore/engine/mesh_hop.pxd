# How an HTTP/1 request is marked while it rides HTTP/2 between two proxies of the mesh: `l5d-orig-proto`, the word that
# Linkerd's proxies use. Owns the field's text, written and read; decides neither who rides nor whose mark is believed.

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from meshcore.engine.fields cimport FIELD_L5D_ORIG_PROTO
from meshcore.engine.head cimport Field, Head, head_field, head_has

cdef enum:
    MESH_HOP_MAX_BYTES = 41             # "l5d-orig-proto: HTTP/1.1; absolute-form" CRLF


cdef inline char* mesh_hop_write(uint8_t minor_version, int is_absolute, char* at) noexcept nogil:
    """The mark of a request of HTTP/1: at most MESH_HOP_MAX_BYTES. Returns what follows it."""
    memcpy(at, b"l5d-orig-proto: HTTP/1.1", 24)
    at[23] = <char>(48 + minor_version)
    at += 24
    if is_absolute:
        memcpy(at, b"; absolute-form", 15)
        at += 15
    memcpy(at, b"\r\n", 2)
    return at + 2


cdef inline int mesh_hop_is_marked(const Head* head) noexcept nogil:
    """1 when one mark stands there, and it is one of HTTP/1. What it says of the target's form is not needed: like any
    request to an origin server it goes on in origin-form, with the authority it named as Host (RFC 9112 3.2.1)."""
    cdef const Field* field
    cdef const char* at
    if not head_has(head, FIELD_L5D_ORIG_PROTO) or head.repeated >> FIELD_L5D_ORIG_PROTO & 1:
        return 0
    field = head_field(head, FIELD_L5D_ORIG_PROTO)
    at = head.base + field.value_at
    return field.value_len >= 8 and memcmp(at, b"HTTP/1.", 7) == 0 and (at[7] == 48 or at[7] == 49) \
        and (field.value_len == 8 or at[8] == 59)
