# Why the proxy itself answered, cut or refused: one code, one status, one fault. Owns the table; acts on nothing.
#
# A reason is the same word in the response header (`x-mesh-reason`), the tap, the metrics and the log.
# Status per cause follows linkerd2-proxy's respond.rs where it has one (502 endpoint I/O, 503 load shed,
# 504 timeouts and fail-fast, 404 no route); the HTTP/1 rejections follow RFC 9112 and RFC 9110 15.5.
# To add one: a line in REASONS below, in the enum, and a test that provokes it.

cdef extern from * nogil:
    """
    #include <stdint.h>
    #define MESHCORE_REASONS(X) \\
      X(NONE,                       200, 0, "") \\
      X(MALFORMED_HEAD,             400, 1, "the message head is not valid HTTP/1") \\
      X(BAD_METHOD,                 400, 1, "the method is not a token") \\
      X(BAD_TARGET,                 400, 1, "the request target is not valid for this method") \\
      X(BAD_VERSION,                505, 1, "only HTTP/1.0 and HTTP/1.1 are spoken here") \\
      X(BAD_HOST,                   400, 1, "Host is missing, repeated or not a valid authority") \\
      X(BAD_FRAMING,                400, 1, "the message length is ambiguous or invalid") \\
      X(BAD_CHUNK,                  400, 1, "the chunked body is malformed") \\
      X(BAD_TRAILER,                400, 1, "the trailer section is malformed or too large") \\
      X(BAD_UPGRADE,                400, 1, "the upgrade request is incomplete") \\
      X(BAD_GRPC_WEB,               400, 1, "the body of the gRPC-Web call is not valid base64") \
      X(BAD_PROXY_HEADER,           400, 1, "the connection did not begin with a valid PROXY header") \\
      X(BODY_INCOMPLETE,            400, 1, "the request body ended early") \\
      X(HEAD_TIMEOUT,               408, 1, "the request head did not arrive in time") \\
      X(BODY_TIMEOUT,               408, 1, "the request body did not arrive in time") \\
      X(BODY_TOO_LARGE,             413, 1, "the request body exceeds the route's limit") \\
      X(TARGET_TOO_LONG,            414, 1, "the request target exceeds the limit") \\
      X(EXPECTATION_FAILED,         417, 1, "only 100-continue can be expected") \\
      X(HEAD_TOO_LARGE,             431, 1, "the head exceeds the size limit") \\
      X(TOO_MANY_FIELDS,            431, 1, "the head has too many fields") \\
      X(FIELD_TOO_LARGE,            431, 1, "one field exceeds the size limit") \\
      X(METHOD_NOT_ALLOWED,         405, 1, "the method is not allowed here") \\
      X(UNSUPPORTED_CODING,         501, 1, "this transfer coding is not implemented") \\
      X(DOWNSTREAM_CLOSED,          499, 1, "the client went away") \\
      X(DOWNSTREAM_STALLED,         499, 1, "the client stopped reading") \\
      X(DEADLINE_EXCEEDED,          504, 2, "the caller's deadline has passed") \
      X(ROUTE_NOT_FOUND,            404, 2, "no route matches") \\
      X(DIRECT_RESPONSE,            200, 2, "answered by the route itself") \\
      X(FILTER_RESPONSE,            200, 2, "answered by a filter") \\
      X(FILTER_ERROR,               500, 2, "a filter raised") \\
      X(FILTER_OVERLOADED,          503, 2, "the filter queue is full") \\
      X(FILTER_TIMEOUT,             504, 2, "the filter did not answer in time") \\
      X(LOOKUP_NO_NAME,             400, 1, "no name can be made of the request") \\
      X(LOOKUP_TIMEOUT,             504, 2, "nobody said in time what the name means") \\
      X(LOOKUP_OVERLOADED,          503, 2, "too many requests wait for names") \\
      X(LOOKUP_FAILED,              503, 2, "the name could not be looked up") \\
      X(NAME_UNKNOWN,               404, 2, "the name means nothing") \\
      X(NAME_REFUSED,               403, 2, "the name is not to be used") \\
      X(NAME_INVALID,               400, 2, "the name, or what overrides it, is not valid") \\
      X(NAME_UNBOUND,               502, 2, "the name leads to no cluster") \\
      X(NAME_UNAVAILABLE,           503, 2, "the name has nobody to answer now") \\
      X(LOAD_SHED,                  503, 2, "too many requests in flight") \\
      X(DRAINING,                   503, 2, "the proxy is shutting down") \\
      X(OUT_OF_MEMORY,              503, 2, "memory limit reached") \\
      X(UPSTREAM_NO_WEBSOCKET,      502, 2, "the endpoint takes no WebSocket over HTTP/2") \
      X(TUNNEL_TIMEOUT,             504, 2, "the tunnel was idle for too long") \\
      X(INTERCEPT_LOOP,             508, 2, "the connection was on its way to the proxy itself") \\
      X(NO_ORIGINAL_DESTINATION,    503, 2, "nobody knows where the connection was going") \\
      X(TOO_MANY_DESTINATIONS,      503, 2, "too many original destinations at a time") \\
      X(NO_ENDPOINT,                503, 3, "the cluster has no endpoint") \\
      X(ALL_EJECTED,                504, 3, "every endpoint of the cluster is ejected or unhealthy") \\
      X(QUEUE_FULL,                 503, 3, "the cluster's queue is full") \\
      X(QUEUE_TIMEOUT,              503, 3, "no upstream connection became free in time") \\
      X(UPSTREAM_CONNECT_FAILED,    502, 3, "the endpoint refused the connection") \\
      X(UPSTREAM_CONNECT_TIMEOUT,   504, 3, "the endpoint did not accept the connection in time") \\
      X(UPSTREAM_RESET,             502, 3, "the endpoint closed before it answered") \\
      X(UPSTREAM_MALFORMED,         502, 3, "the endpoint's response is not valid HTTP/1") \\
      X(UPSTREAM_HEAD_TOO_LARGE,    502, 3, "the endpoint's response head exceeds the limit") \\
      X(UPSTREAM_UNASKED_UPGRADE,   502, 3, "the endpoint switched protocols unasked") \\
      X(UPSTREAM_RESPONSE_TIMEOUT,  504, 3, "the endpoint did not answer in time") \\
      X(UPSTREAM_IDLE_TIMEOUT,      504, 3, "the endpoint stopped sending") \\
      X(UPSTREAM_TRUNCATED,         502, 3, "the endpoint cut its response short") \\
      X(TLS_PROTOCOL_ERROR,          400, 1, "the client broke the TLS protocol") \\
      X(TLS_NO_COMMON_PARAMETERS,    400, 1, "no TLS version, cipher or group in common with the client") \\
      X(TLS_NO_ALPN,                 400, 1, "no application protocol (ALPN) in common with the client") \\
      X(TLS_CLOSED,                  400, 1, "the client closed during the TLS handshake") \\
      X(TLS_REFUSED,                 400, 1, "the client refused our certificate or this handshake") \\
      X(TLS_HANDSHAKE_TIMEOUT,       408, 1, "the TLS handshake took too long") \\
      X(TLS_REQUIRED,                400, 1, "this port speaks TLS only") \\
      X(TLS_NO_CLIENT_CERTIFICATE,   403, 1, "the client sent no certificate") \\
      X(TLS_EXPIRED,                 403, 1, "the client's certificate, or one above it, has expired") \\
      X(TLS_NOT_YET_VALID,           403, 1, "the client's certificate is not valid yet") \\
      X(TLS_SELF_SIGNED,             403, 1, "the client's certificate is self-signed") \\
      X(TLS_UNKNOWN_CA,              403, 1, "the client's certificate leads to no trusted root: the CA is unknown, or an intermediate was not sent") \\
      X(TLS_WRONG_PURPOSE,           403, 1, "the client's certificate is not for clients (key usage)") \\
      X(TLS_CHAIN_TOO_DEEP,          403, 1, "the client's certificate chain is too long") \\
      X(TLS_KEY_TOO_LARGE,           403, 1, "a key in the client's certificate chain is above 8192 bits") \\
      X(TLS_KEY_TOO_WEAK,            403, 1, "a key or digest in the client's certificate chain is too weak") \\
      X(TLS_REVOKED,                 403, 1, "the client's certificate is revoked") \\
      X(TLS_CRL_UNUSABLE,            403, 1, "no valid CRL for the client's certificate") \\
      X(TLS_BAD_CERTIFICATE,         403, 1, "the client's certificate is not acceptable") \\
      X(TLS_BAD_IDENTITY,            403, 1, "the client's certificate names no single valid SPIFFE id") \\
      X(TLS_WRONG_IDENTITY,          403, 1, "the client is none of those allowed here") \\
      X(TLS_HANDSHAKES_SHED,        503, 2, "too many TLS handshakes at a time") \\
      X(TLS_UPSTREAM_PROTOCOL_ERROR, 502, 3, "the endpoint broke the TLS protocol") \\
      X(TLS_UPSTREAM_NO_COMMON_PARAMETERS, 502, 3, "no TLS version, cipher or group in common with the endpoint") \\
      X(TLS_UPSTREAM_NO_ALPN,        502, 3, "no application protocol (ALPN) in common with the endpoint") \\
      X(TLS_UPSTREAM_CLOSED,         502, 3, "the endpoint closed during the TLS handshake") \\
      X(TLS_UPSTREAM_REFUSED,        502, 3, "the endpoint refused our certificate or this handshake") \\
      X(TLS_UPSTREAM_HANDSHAKE_TIMEOUT, 504, 3, "the TLS handshake with the endpoint took too long") \\
      X(TLS_UPSTREAM_PLAINTEXT,      502, 3, "the endpoint does not speak TLS") \\
      X(TLS_UPSTREAM_EXPIRED,        502, 3, "the endpoint's certificate, or one above it, has expired") \\
      X(TLS_UPSTREAM_NOT_YET_VALID,  502, 3, "the endpoint's certificate is not valid yet") \\
      X(TLS_UPSTREAM_SELF_SIGNED,    502, 3, "the endpoint's certificate is self-signed") \\
      X(TLS_UPSTREAM_UNKNOWN_CA,     502, 3, "the endpoint's certificate leads to no trusted root: the CA is unknown, or an intermediate was not sent") \\
      X(TLS_UPSTREAM_WRONG_PURPOSE,  502, 3, "the endpoint's certificate is not for servers (key usage)") \\
      X(TLS_UPSTREAM_CHAIN_TOO_DEEP, 502, 3, "the endpoint's certificate chain is too long") \\
      X(TLS_UPSTREAM_KEY_TOO_LARGE,  502, 3, "a key in the endpoint's certificate chain is above 8192 bits") \\
      X(TLS_UPSTREAM_KEY_TOO_WEAK,   502, 3, "a key or digest in the endpoint's certificate chain is too weak") \\
      X(TLS_UPSTREAM_REVOKED,        502, 3, "the endpoint's certificate is revoked") \\
      X(TLS_UPSTREAM_CRL_UNUSABLE,   502, 3, "no valid CRL for the endpoint's certificate") \\
      X(TLS_UPSTREAM_BAD_CERTIFICATE, 502, 3, "the endpoint's certificate is not acceptable") \\
      X(TLS_UPSTREAM_BAD_IDENTITY,   502, 3, "the endpoint's certificate names no single valid SPIFFE id") \\
      X(TLS_UPSTREAM_WRONG_IDENTITY, 502, 3, "the endpoint is not who it must be") \\
      X(TOTAL_TIMEOUT,              504, 3, "the exchange exceeded its total timeout")
    enum {
    #define X(name, status, fault, text) MC_REASON_##name,
      MESHCORE_REASONS(X)
    #undef X
      MC_REASON_COUNT
    };
    static const uint16_t mc_reason_status[] = {
    #define X(name, status, fault, text) status,
      MESHCORE_REASONS(X)
    #undef X
    };
    static const uint8_t mc_reason_fault[] = {
    #define X(name, status, fault, text) fault,
      MESHCORE_REASONS(X)
    #undef X
    };
    static const char* const mc_reason_name[] = {
    #define X(name, status, fault, text) #name,
      MESHCORE_REASONS(X)
    #undef X
    };
    static const char* const mc_reason_text[] = {
    #define X(name, status, fault, text) text,
      MESHCORE_REASONS(X)
    #undef X
    };
    /* By TlsFailure (see certificate): what it is called when a client is at fault, and when an endpoint is. */
    static const uint8_t mc_tls_reasons[2][22] = {
      { MC_REASON_NONE,
        MC_REASON_TLS_PROTOCOL_ERROR, MC_REASON_TLS_NO_COMMON_PARAMETERS, MC_REASON_TLS_NO_ALPN,
        MC_REASON_TLS_CLOSED, MC_REASON_TLS_REFUSED, MC_REASON_TLS_HANDSHAKE_TIMEOUT, MC_REASON_TLS_REQUIRED,
        MC_REASON_TLS_NO_CLIENT_CERTIFICATE, MC_REASON_TLS_EXPIRED, MC_REASON_TLS_NOT_YET_VALID,
        MC_REASON_TLS_SELF_SIGNED, MC_REASON_TLS_UNKNOWN_CA, MC_REASON_TLS_WRONG_PURPOSE,
        MC_REASON_TLS_CHAIN_TOO_DEEP, MC_REASON_TLS_KEY_TOO_LARGE, MC_REASON_TLS_KEY_TOO_WEAK,
        MC_REASON_TLS_REVOKED, MC_REASON_TLS_CRL_UNUSABLE, MC_REASON_TLS_BAD_CERTIFICATE,
        MC_REASON_TLS_BAD_IDENTITY, MC_REASON_TLS_WRONG_IDENTITY },
      { MC_REASON_NONE,
        MC_REASON_TLS_UPSTREAM_PROTOCOL_ERROR, MC_REASON_TLS_UPSTREAM_NO_COMMON_PARAMETERS,
        MC_REASON_TLS_UPSTREAM_NO_ALPN, MC_REASON_TLS_UPSTREAM_CLOSED, MC_REASON_TLS_UPSTREAM_REFUSED,
        MC_REASON_TLS_UPSTREAM_HANDSHAKE_TIMEOUT, MC_REASON_TLS_UPSTREAM_PLAINTEXT,
        MC_REASON_TLS_UPSTREAM_BAD_CERTIFICATE, MC_REASON_TLS_UPSTREAM_EXPIRED,
        MC_REASON_TLS_UPSTREAM_NOT_YET_VALID, MC_REASON_TLS_UPSTREAM_SELF_SIGNED, MC_REASON_TLS_UPSTREAM_UNKNOWN_CA,
        MC_REASON_TLS_UPSTREAM_WRONG_PURPOSE, MC_REASON_TLS_UPSTREAM_CHAIN_TOO_DEEP,
        MC_REASON_TLS_UPSTREAM_KEY_TOO_LARGE, MC_REASON_TLS_UPSTREAM_KEY_TOO_WEAK, MC_REASON_TLS_UPSTREAM_REVOKED,
        MC_REASON_TLS_UPSTREAM_CRL_UNUSABLE, MC_REASON_TLS_UPSTREAM_BAD_CERTIFICATE,
        MC_REASON_TLS_UPSTREAM_BAD_IDENTITY, MC_REASON_TLS_UPSTREAM_WRONG_IDENTITY },
    };
    static inline unsigned char mc_tls_reason_of(int is_upstream, int failure) {
        return mc_tls_reasons[is_upstream != 0][failure];
    }
    """
    enum:
        REASON_NONE "MC_REASON_NONE"
        REASON_MALFORMED_HEAD "MC_REASON_MALFORMED_HEAD"
        REASON_BAD_METHOD "MC_REASON_BAD_METHOD"
        REASON_BAD_TARGET "MC_REASON_BAD_TARGET"
        REASON_BAD_VERSION "MC_REASON_BAD_VERSION"
        REASON_BAD_HOST "MC_REASON_BAD_HOST"
        REASON_BAD_FRAMING "MC_REASON_BAD_FRAMING"
        REASON_BAD_CHUNK "MC_REASON_BAD_CHUNK"
        REASON_BAD_TRAILER "MC_REASON_BAD_TRAILER"
        REASON_BAD_UPGRADE "MC_REASON_BAD_UPGRADE"
        REASON_BAD_GRPC_WEB "MC_REASON_BAD_GRPC_WEB"
        REASON_BAD_PROXY_HEADER "MC_REASON_BAD_PROXY_HEADER"
        REASON_BODY_INCOMPLETE "MC_REASON_BODY_INCOMPLETE"
        REASON_HEAD_TIMEOUT "MC_REASON_HEAD_TIMEOUT"
        REASON_BODY_TIMEOUT "MC_REASON_BODY_TIMEOUT"
        REASON_BODY_TOO_LARGE "MC_REASON_BODY_TOO_LARGE"
        REASON_TARGET_TOO_LONG "MC_REASON_TARGET_TOO_LONG"
        REASON_EXPECTATION_FAILED "MC_REASON_EXPECTATION_FAILED"
        REASON_HEAD_TOO_LARGE "MC_REASON_HEAD_TOO_LARGE"
        REASON_TOO_MANY_FIELDS "MC_REASON_TOO_MANY_FIELDS"
        REASON_FIELD_TOO_LARGE "MC_REASON_FIELD_TOO_LARGE"
        REASON_METHOD_NOT_ALLOWED "MC_REASON_METHOD_NOT_ALLOWED"
        REASON_UNSUPPORTED_CODING "MC_REASON_UNSUPPORTED_CODING"
        REASON_DOWNSTREAM_CLOSED "MC_REASON_DOWNSTREAM_CLOSED"
        REASON_DOWNSTREAM_STALLED "MC_REASON_DOWNSTREAM_STALLED"
        REASON_DEADLINE_EXCEEDED "MC_REASON_DEADLINE_EXCEEDED"
        REASON_ROUTE_NOT_FOUND "MC_REASON_ROUTE_NOT_FOUND"
        REASON_DIRECT_RESPONSE "MC_REASON_DIRECT_RESPONSE"
        REASON_FILTER_RESPONSE "MC_REASON_FILTER_RESPONSE"
        REASON_FILTER_ERROR "MC_REASON_FILTER_ERROR"
        REASON_FILTER_OVERLOADED "MC_REASON_FILTER_OVERLOADED"
        REASON_FILTER_TIMEOUT "MC_REASON_FILTER_TIMEOUT"
        REASON_LOOKUP_NO_NAME "MC_REASON_LOOKUP_NO_NAME"
        REASON_LOOKUP_TIMEOUT "MC_REASON_LOOKUP_TIMEOUT"
        REASON_LOOKUP_OVERLOADED "MC_REASON_LOOKUP_OVERLOADED"
        REASON_LOOKUP_FAILED "MC_REASON_LOOKUP_FAILED"
        REASON_NAME_UNKNOWN "MC_REASON_NAME_UNKNOWN"
        REASON_NAME_REFUSED "MC_REASON_NAME_REFUSED"
        REASON_NAME_INVALID "MC_REASON_NAME_INVALID"
        REASON_NAME_UNBOUND "MC_REASON_NAME_UNBOUND"
        REASON_NAME_UNAVAILABLE "MC_REASON_NAME_UNAVAILABLE"
        REASON_LOAD_SHED "MC_REASON_LOAD_SHED"
        REASON_DRAINING "MC_REASON_DRAINING"
        REASON_OUT_OF_MEMORY "MC_REASON_OUT_OF_MEMORY"
        REASON_TUNNEL_TIMEOUT "MC_REASON_TUNNEL_TIMEOUT"
        REASON_INTERCEPT_LOOP "MC_REASON_INTERCEPT_LOOP"
        REASON_NO_ORIGINAL_DESTINATION "MC_REASON_NO_ORIGINAL_DESTINATION"
        REASON_TOO_MANY_DESTINATIONS "MC_REASON_TOO_MANY_DESTINATIONS"
        REASON_NO_ENDPOINT "MC_REASON_NO_ENDPOINT"
        REASON_ALL_EJECTED "MC_REASON_ALL_EJECTED"
        REASON_QUEUE_FULL "MC_REASON_QUEUE_FULL"
        REASON_QUEUE_TIMEOUT "MC_REASON_QUEUE_TIMEOUT"
        REASON_UPSTREAM_CONNECT_FAILED "MC_REASON_UPSTREAM_CONNECT_FAILED"
        REASON_UPSTREAM_CONNECT_TIMEOUT "MC_REASON_UPSTREAM_CONNECT_TIMEOUT"
        REASON_UPSTREAM_RESET "MC_REASON_UPSTREAM_RESET"
        REASON_UPSTREAM_MALFORMED "MC_REASON_UPSTREAM_MALFORMED"
        REASON_UPSTREAM_HEAD_TOO_LARGE "MC_REASON_UPSTREAM_HEAD_TOO_LARGE"
        REASON_UPSTREAM_NO_WEBSOCKET "MC_REASON_UPSTREAM_NO_WEBSOCKET"
        REASON_UPSTREAM_UNASKED_UPGRADE "MC_REASON_UPSTREAM_UNASKED_UPGRADE"
        REASON_UPSTREAM_RESPONSE_TIMEOUT "MC_REASON_UPSTREAM_RESPONSE_TIMEOUT"
        REASON_UPSTREAM_IDLE_TIMEOUT "MC_REASON_UPSTREAM_IDLE_TIMEOUT"
        REASON_UPSTREAM_TRUNCATED "MC_REASON_UPSTREAM_TRUNCATED"
        REASON_TOTAL_TIMEOUT "MC_REASON_TOTAL_TIMEOUT"
        REASON_TLS_PROTOCOL_ERROR "MC_REASON_TLS_PROTOCOL_ERROR"
        REASON_TLS_NO_COMMON_PARAMETERS "MC_REASON_TLS_NO_COMMON_PARAMETERS"
        REASON_TLS_NO_ALPN "MC_REASON_TLS_NO_ALPN"
        REASON_TLS_CLOSED "MC_REASON_TLS_CLOSED"
        REASON_TLS_REFUSED "MC_REASON_TLS_REFUSED"
        REASON_TLS_HANDSHAKE_TIMEOUT "MC_REASON_TLS_HANDSHAKE_TIMEOUT"
        REASON_TLS_REQUIRED "MC_REASON_TLS_REQUIRED"
        REASON_TLS_NO_CLIENT_CERTIFICATE "MC_REASON_TLS_NO_CLIENT_CERTIFICATE"
        REASON_TLS_EXPIRED "MC_REASON_TLS_EXPIRED"
        REASON_TLS_NOT_YET_VALID "MC_REASON_TLS_NOT_YET_VALID"
        REASON_TLS_SELF_SIGNED "MC_REASON_TLS_SELF_SIGNED"
        REASON_TLS_UNKNOWN_CA "MC_REASON_TLS_UNKNOWN_CA"
        REASON_TLS_WRONG_PURPOSE "MC_REASON_TLS_WRONG_PURPOSE"
        REASON_TLS_CHAIN_TOO_DEEP "MC_REASON_TLS_CHAIN_TOO_DEEP"
        REASON_TLS_KEY_TOO_LARGE "MC_REASON_TLS_KEY_TOO_LARGE"
        REASON_TLS_KEY_TOO_WEAK "MC_REASON_TLS_KEY_TOO_WEAK"
        REASON_TLS_REVOKED "MC_REASON_TLS_REVOKED"
        REASON_TLS_CRL_UNUSABLE "MC_REASON_TLS_CRL_UNUSABLE"
        REASON_TLS_BAD_CERTIFICATE "MC_REASON_TLS_BAD_CERTIFICATE"
        REASON_TLS_BAD_IDENTITY "MC_REASON_TLS_BAD_IDENTITY"
        REASON_TLS_WRONG_IDENTITY "MC_REASON_TLS_WRONG_IDENTITY"
        REASON_TLS_HANDSHAKES_SHED "MC_REASON_TLS_HANDSHAKES_SHED"
        REASON_TLS_UPSTREAM_PROTOCOL_ERROR "MC_REASON_TLS_UPSTREAM_PROTOCOL_ERROR"
        REASON_TLS_UPSTREAM_NO_COMMON_PARAMETERS "MC_REASON_TLS_UPSTREAM_NO_COMMON_PARAMETERS"
        REASON_TLS_UPSTREAM_NO_ALPN "MC_REASON_TLS_UPSTREAM_NO_ALPN"
        REASON_TLS_UPSTREAM_CLOSED "MC_REASON_TLS_UPSTREAM_CLOSED"
        REASON_TLS_UPSTREAM_REFUSED "MC_REASON_TLS_UPSTREAM_REFUSED"
        REASON_TLS_UPSTREAM_HANDSHAKE_TIMEOUT "MC_REASON_TLS_UPSTREAM_HANDSHAKE_TIMEOUT"
        REASON_TLS_UPSTREAM_PLAINTEXT "MC_REASON_TLS_UPSTREAM_PLAINTEXT"
        REASON_TLS_UPSTREAM_EXPIRED "MC_REASON_TLS_UPSTREAM_EXPIRED"
        REASON_TLS_UPSTREAM_NOT_YET_VALID "MC_REASON_TLS_UPSTREAM_NOT_YET_VALID"
        REASON_TLS_UPSTREAM_SELF_SIGNED "MC_REASON_TLS_UPSTREAM_SELF_SIGNED"
        REASON_TLS_UPSTREAM_UNKNOWN_CA "MC_REASON_TLS_UPSTREAM_UNKNOWN_CA"
        REASON_TLS_UPSTREAM_WRONG_PURPOSE "MC_REASON_TLS_UPSTREAM_WRONG_PURPOSE"
        REASON_TLS_UPSTREAM_CHAIN_TOO_DEEP "MC_REASON_TLS_UPSTREAM_CHAIN_TOO_DEEP"
        REASON_TLS_UPSTREAM_KEY_TOO_LARGE "MC_REASON_TLS_UPSTREAM_KEY_TOO_LARGE"
        REASON_TLS_UPSTREAM_KEY_TOO_WEAK "MC_REASON_TLS_UPSTREAM_KEY_TOO_WEAK"
        REASON_TLS_UPSTREAM_REVOKED "MC_REASON_TLS_UPSTREAM_REVOKED"
        REASON_TLS_UPSTREAM_CRL_UNUSABLE "MC_REASON_TLS_UPSTREAM_CRL_UNUSABLE"
        REASON_TLS_UPSTREAM_BAD_CERTIFICATE "MC_REASON_TLS_UPSTREAM_BAD_CERTIFICATE"
        REASON_TLS_UPSTREAM_BAD_IDENTITY "MC_REASON_TLS_UPSTREAM_BAD_IDENTITY"
        REASON_TLS_UPSTREAM_WRONG_IDENTITY "MC_REASON_TLS_UPSTREAM_WRONG_IDENTITY"
        REASON_COUNT "MC_REASON_COUNT"
    unsigned char tls_reason "mc_tls_reason_of"(int is_upstream, int failure)
    const unsigned short* reason_status "mc_reason_status"
    const unsigned char* reason_fault "mc_reason_fault"
    const char* const* reason_name "mc_reason_name"
    const char* const* reason_text "mc_reason_text"


cdef enum Fault:                        # the third column of the table
    FAULT_NOBODY = 0
    FAULT_DOWNSTREAM = 1
    FAULT_INTERNAL = 2
    FAULT_UPSTREAM = 3
