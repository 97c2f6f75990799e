# Frames of HTTP/2 (RFC 9113 4.1, 6): their numbers, their heads read and written. Knows no stream and no state.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memmove

cdef enum Http2FrameType:
    FRAME_DATA = 0
    FRAME_HEADERS = 1
    FRAME_PRIORITY = 2
    FRAME_RST_STREAM = 3
    FRAME_SETTINGS = 4
    FRAME_PUSH_PROMISE = 5
    FRAME_PING = 6
    FRAME_GOAWAY = 7
    FRAME_WINDOW_UPDATE = 8
    FRAME_CONTINUATION = 9

cdef enum Http2Flag:
    FLAG_END_STREAM = 1
    FLAG_ACK = 1
    FLAG_END_HEADERS = 4
    FLAG_PADDED = 8
    FLAG_PRIORITY = 32

cdef enum Http2Setting:
    SETTING_HEADER_TABLE_SIZE = 1
    SETTING_ENABLE_PUSH = 2
    SETTING_MAX_CONCURRENT_STREAMS = 3
    SETTING_INITIAL_WINDOW_SIZE = 4
    SETTING_MAX_FRAME_SIZE = 5
    SETTING_MAX_HEADER_LIST_SIZE = 6
    SETTING_ENABLE_CONNECT_PROTOCOL = 8
    SETTING_NO_RFC7540_PRIORITIES = 9

cdef enum Http2Error:
    HTTP2_NO_ERROR = 0
    HTTP2_PROTOCOL_ERROR = 1
    HTTP2_INTERNAL_ERROR = 2
    HTTP2_FLOW_CONTROL_ERROR = 3
    HTTP2_STREAM_CLOSED = 5
    HTTP2_FRAME_SIZE_ERROR = 6
    HTTP2_REFUSED_STREAM = 7
    HTTP2_CANCEL = 8
    HTTP2_COMPRESSION_ERROR = 9
    HTTP2_ENHANCE_YOUR_CALM = 11

cdef enum:
    FRAME_HEAD_BYTES = 9
    FRAME_PAYLOAD_BYTES = 16384         # that both sides take unasked; we never ask for more, nor send it
    FRAME_MAX_PAYLOAD_BYTES = 16777215
    WINDOW_MAX_BYTES = 2147483647
    WINDOW_FIRST_BYTES = 65535          # of a connection, and of streams until a peer says otherwise
    PREFACE_BYTES = 24

cdef extern from * nogil:
    """
    static const char mc_http2_preface[] = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n";
    """
    const char* HTTP2_PREFACE "mc_http2_preface"


cdef struct Frame:
    uint32_t length                     # of its payload
    int32_t id                          # of its stream
    uint8_t type
    uint8_t flags


cdef inline uint32_t frame_word(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline void frame_read(Frame* frame, const uint8_t* at) noexcept nogil:
    frame.length = <uint32_t>at[0] << 16 | <uint32_t>at[1] << 8 | at[2]
    frame.type = at[3]
    frame.flags = at[4]
    frame.id = <int32_t>(frame_word(at + 5) & 0x7FFFFFFF)


cdef inline char* frame_put_word(char* out, uint32_t value) noexcept nogil:
    out[0] = <char>(value >> 24)
    out[1] = <char>(value >> 16)
    out[2] = <char>(value >> 8)
    out[3] = <char>value
    return out + 4


cdef inline char* frame_put(char* out, uint32_t length, uint32_t type, uint32_t flags, int32_t id) noexcept nogil:
    """A frame's head. Returns where its payload goes."""
    out[0] = <char>(length >> 16)
    out[1] = <char>(length >> 8)
    out[2] = <char>length
    out[3] = <char>type
    out[4] = <char>flags
    return frame_put_word(out + 5, <uint32_t>id)


cdef inline char* frame_put_setting(char* out, uint32_t setting, uint32_t value) noexcept nogil:
    out[0] = <char>(setting >> 8)
    out[1] = <char>setting
    return frame_put_word(out + 2, value)


cdef inline char* frame_put_block(char* out, uint32_t length, uint32_t flags, int32_t id) noexcept nogil:
    """Make frames of a header block that lies behind room for one frame's head, at `out`; its end. What is longer than a
    frame goes on in CONTINUATION, so FRAME_HEAD_BYTES of room are needed behind it for each FRAME_PAYLOAD_BYTES."""
    cdef uint32_t n_more = (length - 1) // FRAME_PAYLOAD_BYTES if length else 0
    cdef uint32_t last = length - n_more * FRAME_PAYLOAD_BYTES
    cdef uint32_t i
    cdef char* at
    if n_more == 0:
        return frame_put(out, length, FRAME_HEADERS, flags | FLAG_END_HEADERS, id) + length
    for i in range(n_more, 0, -1):
        at = out + i * (FRAME_HEAD_BYTES + FRAME_PAYLOAD_BYTES)
        memmove(at + FRAME_HEAD_BYTES, out + FRAME_HEAD_BYTES + i * FRAME_PAYLOAD_BYTES,
                   last if i == n_more else <uint32_t>FRAME_PAYLOAD_BYTES)
        frame_put(at, last if i == n_more else <uint32_t>FRAME_PAYLOAD_BYTES, FRAME_CONTINUATION,
                  FLAG_END_HEADERS if i == n_more else 0, id)
    frame_put(out, FRAME_PAYLOAD_BYTES, FRAME_HEADERS, flags, id)
    return out + length + FRAME_HEAD_BYTES * (n_more + 1)
