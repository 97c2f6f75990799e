# TLS over a socket: the second thing the bytes of a connection may travel in. Handshake, records, close; whom to trust and what
# follows from a failure is decided elsewhere (certificate, event).
#
# Ciphertext is read as any bytes are (socket, batch), into a buffer of the worker, and OpenSSL takes it all: what the reader has
# no room for stays decrypted inside the SSL (one record at most), or undecrypted in `unread`; both leave IO_READABLE set,
# so that DRAIN_TO_AGAIN holds. What OpenSSL writes is sent by socket_send, in pieces of 32 KiB: larger ones are slower
# per byte. out_buffer so holds ciphertext, and backpressure, batches and flushing are the socket's own.
# The end of input is an end only after close_notify: FIN alone is a failure (truncation, RFC 8446 6.1).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from meshcore.engine.batch cimport batch_hold
from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.certificate cimport (
    TLS_CLOSED, TLS_NO_ALPN, TLS_NO_CERTIFICATE, TLS_NO_COMMON_PARAMETERS, TLS_PLAINTEXT, TLS_PROTOCOL_ERROR,
    TLS_REFUSED, TLS_SOUND, certificate_judge_resumed,
)
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.openssl cimport (
    BIO, SSL, SSL3_RT_HANDSHAKE, SSL_AD_REASON_OFFSET, SSL_CTX, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE,
    SSL_ERROR_ZERO_RETURN, SSL_RECEIVED_SHUTDOWN, SSL_R_ALERT_HANDSHAKE_FAILURE, SSL_R_ALERT_PROTOCOL_VERSION,
    SSL_R_HTTPS_PROXY_REQUEST, SSL_R_HTTP_REQUEST, SSL_R_NO_APPLICATION_PROTOCOL, SSL_R_NO_PROTOCOLS_AVAILABLE,
    SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SHARED_GROUPS, SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, SSL_R_NO_SUITABLE_GROUPS,
    SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, SSL_R_PACKET_LENGTH_TOO_LONG,
    SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL, SSL_R_UNSUPPORTED_PROTOCOL,
    SSL_R_VERSION_TOO_LOW, SSL_R_WRONG_VERSION_NUMBER, SSL_SENT_SHUTDOWN, SSL_SESSION, BIO_up_ref, ERR_clear_error,
    SSL_CTX_get_ex_data, SSL_SESSION_free, SSL_SESSION_is_resumable, SSL_do_handshake, SSL_free,
    SSL_get0_alpn_selected, SSL_get0_peer_certificate, SSL_get_app_data, SSL_get_error, SSL_get_shutdown, SSL_new,
    SSL_peek, SSL_pending, SSL_read, SSL_session_reused, SSL_set_accept_state, SSL_set_alpn_protos, SSL_set_app_data,
    SSL_set_bio, SSL_set_connect_state, SSL_set_session, SSL_set_shutdown, SSL_set_tlsext_host_name, SSL_shutdown,
    SSL_version, SSL_write, TLS1_3_VERSION, TlsPipe, openssl_reason, rules_index,
)
from meshcore.engine.snapshot cimport Text
from meshcore.engine.socket cimport (
    socket_note_send, socket_recv, socket_recv_anywhere, socket_send, socket_settle,
)
from meshcore.engine.state cimport (
    CONN_AGAIN, CONN_EOF, CONN_ERROR, CONN_OK, CONN_RESET, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, READ_BYTES,
    TRANSPORT_SOCKET, TRANSPORT_TLS, Conn, Worker,
)
from meshcore.engine.sys cimport EAGAIN, MSG_MORE, MSG_PEEK, sys_recv, sys_send
from meshcore.engine.tls_context cimport Peer, TlsRules

cdef enum TlsCode:                      # what a step of a handshake came to
    TLS_MORE = 0
    TLS_DONE = 1
    TLS_FAILED = 2                      # peer.failure says why; an alert is on its way where there is one to send

cdef enum TlsProtocol:                  # what was agreed on by ALPN
    TLS_ALPN_NONE = 0
    TLS_ALPN_HTTP1 = 1
    TLS_ALPN_HTTP2 = 2
    TLS_ALPN_OTHER = 3

cdef enum:
    TLS_OUT_BYTES = 65536
    TLS_FLUSH_BYTES = 32768
    TLS_RECORD_BYTES = 16384
    TLS_CONTROL_MESSAGES = 32           # KeyUpdates and the like without data; more are a flood


cdef struct Tls:                        # Conn.channel
    Peer peer                           # first: the SSL's app data
    SSL* ssl
    Buffer* unread                      # ciphertext that came and was not decrypted
    uint64_t bytes_in                   # decrypted
    uint8_t is_broken                   # nothing can be sent or received any more
    uint8_t has_ended                   # close_notify came
    uint8_t alpn


cdef inline Tls* tls_of(const Conn* conn) noexcept nogil:
    return <Tls*>conn.channel


# --- begin and end ----------------------------------------------------------------------------------------------------

cdef inline int tls_open(Worker* worker, Conn* conn, SSL_CTX* context, EndpointState* keeper) noexcept nogil:
    """Put TLS between a connection and its socket; a handshake must follow. 1, or 0 without memory.

    `keeper`: of an upstream connection, who keeps a session to resume.
    """
    cdef Tls* tls = <Tls*>calloc(1, sizeof(Tls))
    cdef SSL* ssl
    if tls == NULL:
        return 0
    ERR_clear_error()
    ssl = SSL_new(context)
    if ssl == NULL:
        free(tls)
        return 0
    # Safety: the rules live with the context, and the SSL holds that as long as it lives, whatever SNI chose.
    tls.peer.rules = <const TlsRules*>SSL_CTX_get_ex_data(context, rules_index(NULL))
    tls.peer.keeper = keeper
    tls.ssl = ssl
    SSL_set_app_data(ssl, tls)
    BIO_up_ref(<BIO*>worker.tls_bio)
    SSL_set_bio(ssl, <BIO*>worker.tls_bio, <BIO*>worker.tls_bio)
    if tls.peer.rules.is_server:
        SSL_set_accept_state(ssl)
    else:
        SSL_set_connect_state(ssl)
        tls_prepare_client(tls, keeper)
    conn.transport = TRANSPORT_TLS
    conn.channel = tls
    worker.tls_handshakes += 1
    return 1


cdef inline void tls_offer_http2(Conn* conn) noexcept nogil:
    """Ask for HTTP/2 on this connection, where its context leaves open what to ask for. Call before the handshake."""
    cdef Tls* tls = <Tls*>conn.channel
    if tls.peer.rules.alpn_len == 0:
        SSL_set_alpn_protos(tls.ssl, <const unsigned char*>b"\x02h2", 3)


cdef inline int tls_expect(Conn* conn, uint8_t kind, Text identity, Text sni) noexcept nogil:
    """Who must be at the other end, and the name to ask for, where the context leaves that open. 1, or 0 without memory."""
    cdef Tls* tls = <Tls*>conn.channel
    # A copy: the connection may outlive the binding that says so.
    tls.peer.expected.text = <char*>malloc(identity.len + 1)
    if tls.peer.expected.text == NULL:
        return 0
    memcpy(tls.peer.expected.text, identity.at, identity.len)
    tls.peer.expected.kind = kind
    tls.peer.expected.len = identity.len
    return sni.len == 0 or SSL_set_tlsext_host_name(tls.ssl, sni.at) == 1


cdef inline void tls_prepare_client(Tls* tls, EndpointState* keeper) noexcept nogil:
    if tls.peer.rules.server_name != NULL:
        SSL_set_tlsext_host_name(tls.ssl, tls.peer.rules.server_name)
    if keeper.tls_session == NULL:
        return
    if keeper.tls_trust != tls.peer.rules.sessions or not SSL_SESSION_is_resumable(<SSL_SESSION*>keeper.tls_session):
        SSL_SESSION_free(<SSL_SESSION*>keeper.tls_session)
        keeper.tls_session = NULL
    else:
        SSL_set_session(tls.ssl, <SSL_SESSION*>keeper.tls_session)


cdef inline int tls_keep_session(SSL* ssl, SSL_SESSION* session) noexcept nogil:
    """A server gave us a session to resume (SSL_CTX_sess_set_new_cb): the newest replaces what its endpoint has."""
    cdef Peer* peer = <Peer*>SSL_get_app_data(ssl)
    cdef EndpointState* keeper = <EndpointState*>peer.keeper
    if keeper == NULL or peer.failure != TLS_SOUND:
        return 0
    if keeper.tls_session != NULL:
        SSL_SESSION_free(<SSL_SESSION*>keeper.tls_session)
    keeper.tls_session = session
    keeper.tls_trust = peer.rules.sessions
    return 1                            # its reference is ours now


cdef inline void tls_close(Worker* worker, Conn* conn) noexcept nogil:
    """Say goodbye where that can be heard, behind what is held back, and free everything."""
    cdef Tls* tls = tls_of(conn)
    if tls.peer.is_established and not tls.is_broken:
        if not conn.flags & CONN_RESET and not conn.io & IO_FAILED and conn.out_buffer == NULL:
            tls_say_end(worker, conn, tls)
        # Safety: a session is resumable only if its connection was shut down; the peer need not have been told.
        SSL_set_shutdown(tls.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    tls_detach(worker, conn)


cdef inline void tls_detach(Worker* worker, Conn* conn) noexcept nogil:
    """Back to the bare socket: of a handshake that failed, only its alert is left to be sent."""
    cdef Tls* tls = tls_of(conn)
    if not tls.peer.is_established:
        worker.tls_handshakes -= 1
    if tls.unread != NULL:
        buffer_return(&worker.buffers, tls.unread)
    SSL_free(tls.ssl)
    free(tls.peer.identity)
    free(tls.peer.expected.text)
    free(tls.peer.certificate)
    free(tls)
    conn.channel = NULL
    conn.transport = TRANSPORT_SOCKET


cdef inline void tls_say_end(Worker* worker, Conn* conn, Tls* tls) noexcept nogil:
    """Send close_notify, once; the FIN that follows shares its segment. Lost where the socket takes nothing now: the peer
    then sees FIN alone."""
    cdef uint32_t n
    if SSL_get_shutdown(tls.ssl) & SSL_SENT_SHUTDOWN or tls.is_broken or not tls.peer.is_established:
        return
    ERR_clear_error()
    worker.tls_pipe.in_n = 0
    SSL_shutdown(tls.ssl)
    n = worker.tls_pipe.out_n
    worker.tls_pipe.out_n = 0
    if n == 0 or (conn.send_slot and batch_hold(&worker.batch, conn, worker.tls_pipe.out, n, 0)):
        return
    if conn.send_slot == 0 or socket_settle(worker, conn) == CONN_OK:
        sys_send(conn.fd, worker.tls_pipe.out, n, MSG_MORE)


# --- ciphertext in and out --------------------------------------------------------------------------------------------

cdef inline void tls_take_up(Worker* worker, Tls* tls) noexcept nogil:
    # What was left over comes first.
    worker.tls_pipe.in_n = 0
    if tls.unread != NULL:
        worker.tls_pipe.in_at = tls.unread.data + tls.unread.start
        worker.tls_pipe.in_n = tls.unread.end - tls.unread.start


cdef inline int tls_fill(Worker* worker, Conn* conn, Tls* tls) noexcept nogil:
    """More ciphertext; all there was is used up. As a read of the socket."""
    cdef char* at = worker.tls_in
    cdef uint32_t n
    cdef int code
    if tls.unread != NULL:
        buffer_return(&worker.buffers, tls.unread)
        tls.unread = NULL
    if not conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        return CONN_AGAIN
    if conn.received_slot:
        code = socket_recv_anywhere(worker, conn, &at, &n)
    else:
        code = socket_recv(worker, conn, at, READ_BYTES, &n)
    if code == CONN_OK:
        worker.tls_pipe.in_at = at
        worker.tls_pipe.in_n = n
    return code


cdef inline void tls_lay_down(Worker* worker, Conn* conn, Tls* tls) noexcept nogil:
    """Keep what was not decrypted, and have the connection looked at again while anything is left."""
    cdef TlsPipe* pipe = &worker.tls_pipe
    if pipe.in_n == 0:
        if tls.unread != NULL:
            buffer_return(&worker.buffers, tls.unread)
            tls.unread = NULL
    elif tls.unread != NULL:
        tls.unread.start = tls.unread.end - pipe.in_n
    else:
        tls.unread = buffer_append(&worker.buffers, NULL, pipe.in_at, pipe.in_n)
        if tls.unread == NULL:
            tls.is_broken = 1
    pipe.in_n = 0
    if tls.unread != NULL or tls.is_broken or SSL_pending(tls.ssl):
        conn.io |= IO_READABLE


cdef inline int tls_keep_received(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Ciphertext read ahead that nobody asked for. 1, or 0 without memory."""
    cdef Buffer* buffer = buffer_append(&worker.buffers, tls_of(conn).unread, at, n)
    if buffer == NULL:
        return 0
    tls_of(conn).unread = buffer
    conn.io |= IO_READABLE
    return 1


cdef inline int tls_send_out(Worker* worker, Conn* conn) noexcept nogil:
    """Hand on what OpenSSL wrote. As socket_send."""
    cdef uint32_t n = worker.tls_pipe.out_n
    worker.tls_pipe.out_n = 0
    return socket_send(worker, conn, worker.tls_pipe.out, n) if n else CONN_OK


# --- handshake --------------------------------------------------------------------------------------------------------

cdef inline int tls_handshake(Worker* worker, Conn* conn) noexcept nogil:
    """Go on with the handshake as far as what came allows. A TlsCode."""
    cdef Tls* tls = tls_of(conn)
    cdef int error
    cdef int code
    tls_take_up(worker, tls)
    while True:
        ERR_clear_error()
        code = SSL_do_handshake(tls.ssl)
        error = 0 if code == 1 else SSL_get_error(tls.ssl, code)
        if error != SSL_ERROR_WANT_READ and error != SSL_ERROR_WANT_WRITE:
            break
        if tls_send_out(worker, conn) == CONN_ERROR:
            tls.peer.failure = TLS_CLOSED
            return TLS_FAILED
        if error == SSL_ERROR_WANT_READ:
            code = tls_fill(worker, conn, tls)
            if code == CONN_AGAIN:
                return TLS_MORE
            if code != CONN_OK:
                tls.peer.failure = TLS_CLOSED
                return TLS_FAILED
    if error:
        if tls.peer.failure == TLS_SOUND:
            tls.peer.failure = tls_failure(openssl_reason(), tls.peer.rules.is_server)
        tls.is_broken = 1
        worker.tls_pipe.in_n = 0
        tls_send_out(worker, conn)
        return TLS_FAILED
    tls_note_alpn(tls)
    if SSL_session_reused(tls.ssl):
        tls.peer.failure = certificate_judge_resumed(&tls.peer, SSL_get0_peer_certificate(tls.ssl)) \
            if tls.peer.rules.client_auth or not tls.peer.rules.is_server else TLS_SOUND
        if tls.peer.failure != TLS_SOUND:
            tls_forget_session(tls)
            worker.tls_pipe.in_n = worker.tls_pipe.out_n = 0
            return TLS_FAILED
    tls.peer.is_established = 1
    worker.tls_handshakes -= 1
    code = tls_send_last(worker, conn, tls)
    tls_lay_down(worker, conn, tls)
    return TLS_FAILED if code == CONN_ERROR else TLS_DONE


cdef inline int tls_send_last(Worker* worker, Conn* conn, const Tls* tls) noexcept nogil:
    """Hand on what ends a handshake. As socket_send.

    Of a TLS 1.3 server that is the ticket, which nobody waits for: it shares the segment of what is said next, and the
    kernel sends it by itself when that takes longer than 200 ms (tcp(7), MSG_MORE).
    """
    cdef uint32_t n = worker.tls_pipe.out_n
    if n == 0 or conn.out_buffer != NULL or conn.send_slot or not tls.peer.rules.is_server \
            or SSL_version(tls.ssl) != TLS1_3_VERSION:
        return tls_send_out(worker, conn)
    worker.tls_pipe.out_n = 0
    return socket_note_send(worker, conn, worker.tls_pipe.out, n, sys_send(conn.fd, worker.tls_pipe.out, n, MSG_MORE))


cdef inline int tls_is_resumed(const Conn* conn) noexcept nogil:
    return SSL_session_reused(tls_of(conn).ssl)


cdef inline void tls_forget_session(Tls* tls) noexcept nogil:
    cdef EndpointState* keeper = <EndpointState*>tls.peer.keeper
    tls.is_broken = 1
    if keeper != NULL and keeper.tls_session != NULL:
        SSL_SESSION_free(<SSL_SESSION*>keeper.tls_session)
        keeper.tls_session = NULL


cdef inline void tls_note_alpn(Tls* tls) noexcept nogil:
    cdef const unsigned char* at = NULL
    cdef unsigned int n = 0
    SSL_get0_alpn_selected(tls.ssl, &at, &n)
    if n == 0:
        tls.alpn = TLS_ALPN_NONE
    elif n == 2 and at[0] == c"h" and at[1] == c"2":
        tls.alpn = TLS_ALPN_HTTP2
    elif n == 8 and at[0] == c"h" and at[5] == c"1" and at[7] == c"1":
        tls.alpn = TLS_ALPN_HTTP1
    else:
        tls.alpn = TLS_ALPN_OTHER


cdef inline uint8_t tls_failure(int reason, int is_server) noexcept nogil:
    """What an error of SSL_do_handshake or SSL_read means, as a TlsFailure."""
    if reason == SSL_R_HTTP_REQUEST or reason == SSL_R_HTTPS_PROXY_REQUEST or reason == SSL_R_WRONG_VERSION_NUMBER \
            or reason == SSL_R_PACKET_LENGTH_TOO_LONG:
        return TLS_PLAINTEXT
    if reason == SSL_R_NO_SHARED_CIPHER or reason == SSL_R_NO_SUITABLE_KEY_SHARE or reason == SSL_R_NO_SUITABLE_GROUPS \
            or reason == SSL_R_NO_SHARED_GROUPS or reason == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM \
            or reason == SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS or reason == SSL_R_UNSUPPORTED_PROTOCOL \
            or reason == SSL_R_VERSION_TOO_LOW or reason == SSL_R_NO_PROTOCOLS_AVAILABLE:
        return TLS_NO_COMMON_PARAMETERS
    if reason == SSL_R_NO_APPLICATION_PROTOCOL or reason == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        return TLS_NO_ALPN
    if reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return TLS_NO_CERTIFICATE
    if not is_server and (reason == SSL_R_ALERT_HANDSHAKE_FAILURE or reason == SSL_R_ALERT_PROTOCOL_VERSION):
        return TLS_NO_COMMON_PARAMETERS
    return TLS_REFUSED if reason >= SSL_AD_REASON_OFFSET else TLS_PROTOCOL_ERROR


cdef inline void tls_count_control(int is_written, int version, int kind, const void* at, size_t n, SSL* ssl,
                                   void* arg) noexcept nogil:
    """Count what is neither data nor an alert once the handshake is over (SSL_CTX_set_msg_callback)."""
    cdef Peer* peer = <Peer*>SSL_get_app_data(ssl)
    if not is_written and kind == SSL3_RT_HANDSHAKE and peer != NULL and peer.is_established:
        peer.control_messages += 1


# --- data -------------------------------------------------------------------------------------------------------------

cdef inline int tls_recv(Worker* worker, Conn* conn, char* at, uint32_t room, uint32_t* n) noexcept nogil:
    """Decrypt `room` bytes at most. As socket_recv."""
    cdef Tls* tls = tls_of(conn)
    cdef uint32_t filled = 0
    cdef int code = CONN_OK
    cdef int got
    n[0] = 0
    if tls.is_broken:
        return tls_note_end(conn, tls, CONN_ERROR)
    if tls.has_ended:
        return tls_note_end(conn, tls, CONN_EOF)
    tls_take_up(worker, tls)
    while filled < room:
        ERR_clear_error()
        got = SSL_read(tls.ssl, at + filled, <int>(room - filled))
        if got > 0:
            filled += <uint32_t>got
            tls.bytes_in += <uint32_t>got
            if worker.tls_pipe.in_n or SSL_pending(tls.ssl):
                continue
            break                       # to be told that there is no more costs as much as a small record
        code = tls_unread(worker, conn, tls, got, filled == 0)
        if code != CONN_OK:
            break
    if worker.tls_pipe.out_n and tls_send_out(worker, conn) == CONN_ERROR:
        tls.is_broken = 1               # an answer to a KeyUpdate: what follows would not be understood
    tls_lay_down(worker, conn, tls)
    if filled:
        if code == CONN_EOF or code == CONN_ERROR:
            conn.io |= IO_READABLE      # told at the next read
        n[0] = filled
        return CONN_OK
    return tls_note_end(conn, tls, code)


cdef inline int tls_unread(Worker* worker, Conn* conn, Tls* tls, int got, int may_fill) noexcept nogil:
    """SSL_read or SSL_peek brought nothing: CONN_OK when it is worth another try, else why not."""
    cdef int error = SSL_get_error(tls.ssl, got)
    cdef int code
    if tls.peer.control_messages > TLS_CONTROL_MESSAGES + (tls.bytes_in >> 16):
        tls.peer.failure = TLS_PROTOCOL_ERROR
        tls.is_broken = 1
        return CONN_ERROR
    if error == SSL_ERROR_WANT_READ:
        if worker.tls_pipe.in_n:
            return CONN_OK              # it turned to a control message: more lies behind it
        if not may_fill:
            return CONN_AGAIN
        code = tls_fill(worker, conn, tls)
        if code == CONN_EOF:
            tls.is_broken = 1           # FIN without close_notify
            return CONN_ERROR
        if code == CONN_ERROR:
            tls.is_broken = 1
        return code
    if error == SSL_ERROR_WANT_WRITE:
        return CONN_ERROR if tls_send_out(worker, conn) == CONN_ERROR else CONN_OK
    if error == SSL_ERROR_ZERO_RETURN:
        tls.has_ended = 1
        return CONN_EOF
    tls.peer.failure = tls_failure(openssl_reason(), tls.peer.rules.is_server)
    tls.is_broken = 1
    return CONN_ERROR


cdef inline int tls_note_end(Conn* conn, const Tls* tls, int code) noexcept nogil:
    # As the socket does at its end: nothing is readable any more.
    if code == CONN_EOF:
        conn.io = (conn.io | IO_PEER_CLOSED) & <uint8_t>~IO_READABLE
    elif code == CONN_ERROR:
        conn.io = (conn.io | IO_FAILED) & <uint8_t>~IO_READABLE
    return code


cdef inline int tls_has_input(Worker* worker, Conn* conn) noexcept nogil:
    """Would a read bring data or the end? Tickets and KeyUpdates are taken on the way: they are neither."""
    cdef Tls* tls = tls_of(conn)
    cdef char byte
    cdef int code = CONN_OK
    cdef int got = 0
    if tls.is_broken or tls.has_ended:
        return 1
    if not conn.io & IO_READABLE and tls.unread == NULL:
        # No edge is remembered, but one may be on its way.
        if sys_recv(conn.fd, &byte, 1, MSG_PEEK) == -EAGAIN:
            return 0
        conn.io |= IO_READABLE
    tls_take_up(worker, tls)
    while code == CONN_OK:
        ERR_clear_error()
        got = SSL_peek(tls.ssl, &byte, 1)
        if got > 0:
            break
        code = tls_unread(worker, conn, tls, got, 1)
    if worker.tls_pipe.out_n and tls_send_out(worker, conn) == CONN_ERROR:
        tls.is_broken = 1
    tls_lay_down(worker, conn, tls)
    return got > 0 or tls.is_broken or tls.has_ended


cdef inline int tls_encrypt(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    # Into the pipe, sending as it fills. CONN_OK, CONN_BLOCKED or CONN_ERROR.
    cdef Tls* tls = tls_of(conn)
    cdef uint32_t piece
    cdef int code = CONN_OK
    cdef int wrote
    if tls.is_broken:
        conn.io |= IO_FAILED
        return CONN_ERROR
    while n:
        piece = n if n < TLS_RECORD_BYTES else TLS_RECORD_BYTES
        ERR_clear_error()
        wrote = SSL_write(tls.ssl, at, <int>piece)
        if wrote <= 0:
            tls.is_broken = 1           # never for want of room: a record fits behind TLS_FLUSH_BYTES
            conn.io |= IO_FAILED
            return CONN_ERROR
        at += wrote
        n -= <uint32_t>wrote
        if worker.tls_pipe.out_n >= TLS_FLUSH_BYTES:
            code = tls_send_out(worker, conn)
            if code == CONN_ERROR:
                return code
    return code


cdef inline int tls_send(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Encrypt and send. As socket_send."""
    cdef int code = tls_encrypt(worker, conn, at, n)
    return code if code == CONN_ERROR or worker.tls_pipe.out_n == 0 else tls_send_out(worker, conn)


cdef inline int tls_send2(Worker* worker, Conn* conn, const char* a, uint32_t a_len,
                          const char* b, uint32_t b_len) noexcept nogil:
    """As tls_send, two pieces."""
    cdef int code = tls_encrypt(worker, conn, a, a_len)
    return code if code == CONN_ERROR else tls_send(worker, conn, b, b_len)
