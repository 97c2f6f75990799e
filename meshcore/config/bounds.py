"""The sections that bound what clients can make the proxy hold or wait for."""

from __future__ import annotations

from typing import Annotated, ClassVar

from .section import Section
from .units import Duration, DurationKind, DurationLike, SizeKind, SizeLike
from .values import IntKind, Key


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what one client can make the proxy hold or wait for."""

    noun: ClassVar[str] = "limits"

    head_size: Annotated[
        SizeLike,
        Key(
            SizeKind("1KiB", "1MiB"),
            "Request or response head; more answers 431.",
            "32KiB: four times what browsers send at worst.",
        ),
    ] = 32_768
    field_size: Annotated[
        SizeLike,
        Key(
            SizeKind("256B", "1MiB"),
            "One header field; more answers 431.",
            "16KiB: the longest cookies and tokens fit.",
        ),
    ] = 16_384
    target_size: Annotated[
        SizeLike,
        Key(SizeKind("256B", "1MiB"), "Request target; more answers 414.", "8KiB: RFC 9112 3 asks for at least 8000."),
    ] = 8_192
    max_fields: Annotated[
        int,
        Key(IntKind(8, 127), "Header fields of a message; more answers 431.", "100: what the usual servers accept."),
    ] = 100
    trailer_size: Annotated[
        SizeLike,
        Key(SizeKind("256B", "64KiB"), "Trailer section of a chunked body.", "8KiB: trailers are few and small."),
    ] = 8_192
    chunk_line: Annotated[
        SizeLike,
        Key(
            SizeKind("32B", "16KiB"),
            "One chunk-size line with extensions.",
            "256B: nobody uses extensions but attackers.",
        ),
    ] = 256
    chunk_extension_total: Annotated[
        SizeLike,
        Key(SizeKind("0B", "1MiB"), "Extensions of all chunks of a body.", "16KiB: tiny chunks cannot hide a flood."),
    ] = 16_384
    max_interim_responses: Annotated[
        int, Key(IntKind(0, 100), "1xx responses before the final one.", "8: a server that sends more is broken.")
    ] = 8
    max_requests_per_connection: Annotated[
        int,
        Key(
            IntKind(1, 2**31 - 1, zero="no limit"),
            "Requests after which a client connection is closed.",
            "10000: clients spread over new workers and proxies in time.",
        ),
    ] = 10_000
    max_connections: Annotated[
        int | str,
        Key(
            IntKind(1, 10_000_000, words=("auto",)),
            "Client connections per worker; more wait in the kernel.",
            "auto: 0.45 of the open files limit (programs raise it to the hard one), shared by the workers; each request may need two descriptors.",
        ),
    ] = "auto"
    max_in_flight: Annotated[
        int,
        Key(
            IntKind(1, 10_000_000),
            "Requests in flight per worker; more answer 503.",
            "100000: a fuse against runaway memory.",
        ),
    ] = 100_000
    max_filters_waiting: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "Requests per worker that may wait for Python filters; more answer 503.",
            "4096: a slow filter must not fill the memory.",
        ),
    ] = 4096
    http2_max_streams: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "Requests at a time on one HTTP/2 connection of a client; more are refused (REFUSED_STREAM).",
            "100: what RFC 9113 asks for at least, and browsers use.",
        ),
    ] = 100
    http2_stream_window: Annotated[
        SizeLike,
        Key(
            SizeKind("16KiB", "16MiB"),
            "Body bytes that the other side of an HTTP/2 stream may send before they are passed on.",
            "64KiB: the most a slow receiver makes us hold, per stream.",
        ),
    ] = 65_536
    http2_max_resets: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "Streams of one HTTP/2 connection that may be reset, by the client or because of it, in about 6 seconds; more "
            "close it (ENHANCE_YOUR_CALM).",
            "200: a browser leaving a page resets a hundred, a rapid-reset attack thousands.",
        ),
    ] = 200
    max_original_destinations: Annotated[
        int,
        Key(
            IntKind(1, 65_536),
            "Addresses per worker that clusters of `type: original_destination` keep connections and breakers for. The one "
            "longest unused makes room; while all are in use, more answer 503.",
            "1024: about 0.6 KiB each; few services speak to as many.",
        ),
    ] = 1024
    max_latency_histograms: Annotated[
        int,
        Key(
            IntKind(16, 1_048_576),
            "Latency histograms per worker, of routes, clusters and endpoints together, each made with its first request. Those that come "
            "later share one, until others are let go (`mesh_folded_duration_seconds`).",
            "4096: up to 14 KiB each, 56 MiB; a cluster and its endpoint for each of 2000 names.",
        ),
    ] = 4096
    max_bound_names: Annotated[
        int,
        Key(
            IntKind(1, 262_144),
            "Names that routes with `lookup` keep bound, all workers together. Those longest unused make room.",
            "16384: a name costs about as much as a route; more services than a proxy speaks to.",
        ),
    ] = 16_384
    max_lookups_waiting: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "Requests per worker that may wait for names that are not known yet; more answer 503.",
            "4096: as for filters; a slow answer must not fill the memory.",
        ),
    ] = 4096
    name_size: Annotated[
        SizeLike,
        Key(
            SizeKind("64B", "16KiB"),
            "A name with its overrides; a request with a longer one has none.",
            "1KiB: four host names, or a table of a dozen entries.",
        ),
    ] = 1_024
    max_tls_handshakes: Annotated[
        int,
        Key(
            IntKind(1, 1_000_000),
            "TLS handshakes under way per worker; clients beyond it are closed.",
            "1000: a quarter of a second of one CPU; a flood must not queue up behind it.",
        ),
    ] = 1000
    buffer_memory: Annotated[
        SizeLike,
        Key(
            SizeKind("1MiB", "64GiB"),
            "Memory per worker for partial heads, requests that may be sent again and output that waits; beyond it 503.",
            "1GiB: far above what traffic needs; a connection holds one read of output at most, then its sender waits.",
        ),
    ] = 1_073_741_824
    body_min_rate: Annotated[
        int,
        Key(
            IntKind(0, 2**31 - 1, unit="bytes/s"),
            "Slowest request body in bytes per second, after the grace. 0 = any.",
            "240: a modem is faster, a slow-body attack is not.",
        ),
    ] = 240
    body_min_rate_grace: Annotated[
        DurationLike,
        Key(DurationKind("0", "1h"), "How long a body may be slower than that.", "10s: a mobile network's pause."),
    ] = Duration("10s")
    linger_size: Annotated[
        SizeLike,
        Key(
            SizeKind("0B", "16MiB"),
            "Bytes read and thrown away after a refusal, so that the client gets to read the answer.",
            "64KiB: what a client has on its way when it is refused.",
        ),
    ] = 65_536


class Timeouts(Section, frozen=True, kw_only=True):
    """Waits on client connections and at the end of the process."""

    noun: ClassVar[str] = "timeouts"

    head: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1h"),
            "From the first byte of a head to its last; then 408.",
            "10s: absolute, so that a byte now and then does not extend it.",
        ),
    ] = Duration("10s")
    keep_alive: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "1d", off=True),
            "Silence between two requests on a client connection.",
            "65s: longer than the 60s of load balancers in front, so that they close first.",
        ),
    ] = Duration("65s")
    linger: Annotated[
        DurationLike,
        Key(DurationKind("0", "60s"), "How long a refused client may still send.", "2s: a few round trips."),
    ] = Duration("2s")
    tls_handshake: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "5m"),
            "From the accept, or the connect, to the end of a TLS handshake.",
            "10s: two round trips of the worst network, and a busy CPU.",
        ),
    ] = Duration("10s")
    filter: Annotated[
        DurationLike,
        Key(
            DurationKind("10ms", "10m"),
            "How long a Python filter may take; then 504.",
            "5s: a filter that waits longer for something has lost it.",
        ),
    ] = Duration("5s")
    bound_name_idle: Annotated[
        DurationLike,
        Key(
            DurationKind("100ms", "1d"),
            "A bound name that no request uses is let go of after this.",
            "10m: what Linkerd keeps a binding for.",
        ),
    ] = Duration("10m")
    drain: Annotated[
        DurationLike,
        Key(
            DurationKind("0", "1h"),
            "How long running requests may take after SIGTERM.",
            "30s: what orchestrators wait before they kill.",
        ),
    ] = Duration("30s")
