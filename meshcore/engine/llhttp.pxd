# llhttp as the httptools wheel carries it: its C types and the entry points found at run time. Owns no parsing policy.
#
# httptools exports llhttp's symbols from its own extension but ships no header, and its cparser.pxd is not the layout:
# the real settings struct has 25 slots with `on_protocol` second (llhttp 9.4; in 9.2 that slot did not exist and every
# later one sat 8 bytes lower). So nothing here is trusted until the door's self-check has seen sizes and callbacks
# agree; a wheel that disagrees is refused at import. Cost: one 96-byte copy per head instead of llhttp_init.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    LLHTTP_STATE_BYTES = 96             # sizeof(llhttp_t), 9.2 .. 9.4
    LLHTTP_SETTINGS_SLOTS = 25          # 200 bytes, 9.4

cdef enum:                              # llhttp_errno, the ones that are told apart here
    HPE_OK = 0
    HPE_UNEXPECTED_CONTENT_LENGTH = 4
    HPE_INVALID_CONTENT_LENGTH = 11
    HPE_INVALID_TRANSFER_ENCODING = 15
    HPE_PAUSED = 21
    HPE_USER = 24

cdef enum:                              # llhttp_type
    LLHTTP_REQUEST = 1
    LLHTTP_RESPONSE = 2


cdef struct LlhttpState:                # llhttp_t, opaque: read through accessors only
    uint64_t words[12]


ctypedef int (*llhttp_data_cb)(LlhttpState*, const char*, size_t) noexcept nogil
ctypedef int (*llhttp_cb)(LlhttpState*) noexcept nogil


cdef struct LlhttpSettings:             # llhttp_settings_t 9.4: the order is the interface
    llhttp_cb on_message_begin
    llhttp_data_cb on_protocol
    llhttp_data_cb on_url
    llhttp_data_cb on_status
    llhttp_data_cb on_method
    llhttp_data_cb on_version
    llhttp_data_cb on_header_field
    llhttp_data_cb on_header_value
    llhttp_data_cb on_chunk_extension_name
    llhttp_data_cb on_chunk_extension_value
    llhttp_cb on_headers_complete
    llhttp_data_cb on_body
    llhttp_cb on_message_complete
    llhttp_cb on_protocol_complete
    llhttp_cb on_url_complete
    llhttp_cb on_status_complete
    llhttp_cb on_method_complete
    llhttp_cb on_version_complete
    llhttp_cb on_header_field_complete
    llhttp_cb on_header_value_complete
    llhttp_cb on_chunk_extension_name_complete
    llhttp_cb on_chunk_extension_value_complete
    llhttp_cb on_chunk_header
    llhttp_cb on_chunk_complete
    llhttp_cb on_reset


ctypedef void (*llhttp_init_fn)(LlhttpState*, int, const LlhttpSettings*) noexcept nogil
ctypedef int (*llhttp_execute_fn)(LlhttpState*, const char*, size_t) noexcept nogil
ctypedef void (*llhttp_settings_init_fn)(LlhttpSettings*) noexcept nogil
ctypedef const char* (*llhttp_get_error_pos_fn)(const LlhttpState*) noexcept nogil


cdef struct Llhttp:
    # Safety: `after_request_line` and `after_status_line` hold a pointer to `settings`, so the struct never moves once
    # head_attach has run. It is written once, before any worker starts, and only read afterwards.
    llhttp_init_fn init
    llhttp_execute_fn execute
    llhttp_settings_init_fn settings_init
    llhttp_get_error_pos_fn get_error_pos
    LlhttpSettings settings
    uint32_t pause_behind               # where error_pos stands after the pause: 0 on the octet behind the head, 1 on its last
    LlhttpState after_request_line      # a parser that has just read "GET / HTTP/1.1\r\n"
    LlhttpState after_status_line       # a parser that has just read "HTTP/1.1 200 OK\r\n"
