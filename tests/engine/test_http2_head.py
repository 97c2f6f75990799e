"""Header blocks of HTTP/2 as text and back, against RFC 9113 written down slowly, and h11 as a reader of the text."""

import re

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshcore._fastpath import http2_block_text, http2_text_fields, parse_request

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
VISIBLE = re.compile(rb"[\x21-\x7e]+")
OF_A_HOP = {b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"}

usual = st.sampled_from([
    (b":method", b"GET"), (b":method", b"POST"), (b":method", b"OPTIONS"), (b":method", b"CONNECT"), (b":scheme", b"http"),
    (b":scheme", b"https"), (b":path", b"/"), (b":path", b"/a?b=c"), (b":path", b"*"), (b":authority", b"a.test"), (b":authority", b""),
    (b"host", b"a.test"), (b"host", b"A.TEST"), (b"host", b"b.test"), (b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"te", b"trailers"),
    (b"te", b"gzip"), (b"content-length", b"0"), (b"content-length", b"5"), (b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"*/*"),
    (b":status", b"200"), (b":protocol", b"websocket")])
odd = st.tuples(
    st.one_of(st.sampled_from([b"x", b"X", b"", b":", b":x", b"a b", b"a:b", b"a\r\nb", b"connection", b"upgrade", b"transfer-encoding", b"keep-alive",
                               b":method", b":path", b":scheme", b":authority", b"content-length", b"host", b"x\0"]), st.binary(max_size=5)),
    st.one_of(st.sampled_from([b"", b" ", b" a", b"a ", b"\t", b"a\r\nx: y", b"a\0", b"/ HTTP/1.1\r\nx: y", b"a\x7f", b"\xe9", b"HTTP://", b"9" * 30]),
              st.binary(max_size=6)))
PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/a")]
blocks = st.one_of(
    st.lists(st.one_of(usual, usual, usual, odd), max_size=8),
    st.lists(st.one_of(usual, odd), max_size=4).map(lambda more: PSEUDO + more),
    st.lists(usual.filter(lambda field: not field[0].startswith(b":")), max_size=6).map(lambda more: PSEUDO + more))


TIGHT = [None, {"head_size_bytes": 90}, {"field_size_bytes": 18}, {"max_fields": 2}, {"head_size_bytes": 120, "field_size_bytes": 40, "max_fields": 4}]


@given(blocks, st.sampled_from(TIGHT), st.integers(0, 200))
def test_text_of_a_block_means_the_same_in_single_octets(fields, limits, cut_off):
    """It is plain, and divided in one pass as a rule; llhttp, which reads what comes in octets, finds the same in it."""
    outcome, text, _ = http2_block_text("request", fields)
    if outcome == "done" and parse_request([text])[0] == "done":
        whole, octets = (parse_request(pieces, limits) for pieces in ([text], [text[i:i + 1] for i in range(len(text))]))
        assert whole == octets if whole[0] == "done" else whole[0] == octets[0]
        part = text[: max(0, len(text) - 1 - cut_off)]
        assert parse_request([part]) == ("more", None)


def broken_rule(fields, ends: bool) -> str | None:
    """The first rule of RFC 9113 8.2 and 8.3 that a request breaks."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    seen: set[bytes] = set()
    for name, value in fields:
        if name.startswith(b":"):
            if regular:
                return "8.3: a pseudo-header field after another field"
            if name not in (b":method", b":scheme", b":authority", b":path", b":protocol"):
                return "8.3: an unknown pseudo-header field"
            if name in seen:
                return "8.3: twice"
            seen.add(name)
            if name == b":authority" and value == b"":
                continue
            if not VISIBLE.fullmatch(value):
                return "8.2.1: octets that end a word of a start line"
            if name == b":scheme" and value.lower() not in (b"http", b"https"):
                return "8.3.1: neither http nor https"
            if name == b":protocol" and value != b"websocket":
                return "8441 4: a protocol nobody speaks here"
            pseudo[name] = value
            continue
        regular = True
        if not NAME.fullmatch(name):
            return "8.2.1: name"
        if not VALUE.fullmatch(value):
            return "8.2.1: value"
        if name in OF_A_HOP or name == b"te" and value.lower() != b"trailers":
            return "8.2.2: of a connection"
        if name == b"host" and pseudo.get(b":authority", value).lower() != value.lower():
            return "8.3.1: two names for one target"
        if name == b"content-length" and (not re.fullmatch(rb"[0-9]+", value) or int(value) >= 1 << 63):
            return "8.1.1: no length"
        if name == b"content-length" and ends:
            # The last one decides here; that there are two is the parser's to refuse, and another rule's when it is no number.
            last = [v for n, v in fields if n == b"content-length"][-1]
            if re.fullmatch(rb"[0-9]+", last) and int(last):
                return "8.1.1: a length without content"
    if b":method" not in pseudo:
        return "8.3.1: no method"
    is_connect = pseudo[b":method"] == b"CONNECT"
    if b":protocol" in pseudo:
        if not is_connect or not {b":scheme", b":path", b":authority"} <= set(pseudo):
            return "8441 4: not an extended CONNECT"
    elif is_connect:
        return "8.5: CONNECT" if b":authority" not in pseudo or {b":scheme", b":path"} & set(pseudo) else None
    if not {b":scheme", b":path"} <= set(pseudo):
        return "8.3.1: no scheme or path"
    path = pseudo[b":path"]
    if not path.startswith(b"/") and not (path == b"*" and pseudo[b":method"] == b"OPTIONS"):
        return "8.3.1: path"
    return None


@settings(max_examples=3000)
@given(blocks, st.booleans(), st.booleans())
@example([*PSEUDO, (b"x-a", b"1"), (b":authority", b"")], True, False)
@example([(b":authority", b""), *PSEUDO], True, False)
@example([*PSEUDO, (b"content-length", b"0"), (b"content-length", b" ")], True, False)
@example([*PSEUDO, (b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d")], True, False)
def test_block_is_refused_for_a_rule_and_else_means_what_h11_reads(fields, ends, has_body_text):
    verdict, text, left = http2_block_text("request", fields, ends, has_body_text)
    rule = broken_rule(fields, ends)
    assert left == 0
    assert (verdict == "MALFORMED_HEAD") == (rule is not None), f"{verdict} {text}, but {rule}"
    if rule is not None:
        return
    assert verdict == "done"
    # What it says of a target, an authority or a repeated length is judged by the one parser, so it comes first.
    if parse_request([text])[0] != "done":
        return
    pseudo = {name: value for name, value in fields if name.startswith(b":") and value}
    if b":protocol" in pseudo:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(text)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == pseudo[b":method"]
    assert request.target == pseudo.get(b":path", pseudo.get(b":authority"))
    named = [(name, value) for name, value in request.headers]
    wanted = [(b"host", pseudo[b":authority"])] if b":authority" in pseudo else []
    cookies = [value for name, value in fields if name == b"cookie"]
    for name, value in fields:
        if name.startswith(b":") or name == b"host" and b":authority" in pseudo:
            continue
        if name == b"cookie":
            wanted += [(b"cookie", b"; ".join(cookies))] if cookies else []
            cookies = []
        elif name == b"te":
            wanted += [(b"connection", b"te"), (b"te", b"trailers")]
        else:
            wanted.append((name, value))
    if has_body_text and pseudo[b":method"] != b"CONNECT" and b"content-length" not in dict(fields):
        wanted.append((b"transfer-encoding", b"chunked"))
    # h11 shows a repeated length once.
    lengths = [pair for pair in wanted if pair[0] == b"content-length"]
    for extra in lengths[1:]:
        wanted.reverse()
        wanted.remove(extra)
        wanted.reverse()
    assert named == wanted


safe_names = st.sampled_from([b"x-a", b"accept", b"content-type", b"authorization", b"cache-control"])
safe_values = st.from_regex(rb"(?:[!-~](?:[\t -~]{0,8}[!-~])?)?", fullmatch=True)


@given(st.sampled_from([b"GET", b"POST", b"DELETE"]), st.sampled_from([b"/", b"/a/b?c", b"/%20"]), st.booleans(),
       st.lists(st.tuples(safe_names, safe_values), max_size=8))
def test_text_that_becomes_fields_and_text_again_means_the_same(method, path, secure, more):
    lines = b"".join(b"%s: %s\r\n" % (name.title(), value) for name, value in more)
    text = b"%s %s HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive\r\n%s\r\n" % (method, path, lines)
    fields = http2_text_fields("request", text, secure)
    assert fields[:4] == [
        (b":method", method), (b":scheme", b"https" if secure else b"http"), (b":authority", b"a.test"), (b":path", path)]
    assert fields[4:] == more
    verdict, again, _ = http2_block_text("request", fields, True)
    assert verdict == "done"
    assert http2_text_fields("request", again, secure) == fields


@given(st.binary(max_size=4), st.lists(st.one_of(usual, odd), max_size=6))
@example(b"200", [(b"x-a", b"1")])
@example(b"599", [(b"connection", b"close")])
def test_response_block_is_refused_for_a_rule_and_else_keeps_its_meaning(status, more):
    verdict, text, left = http2_block_text("response", [(b":status", status), *more])
    legal = re.fullmatch(rb"[1-5][0-9][0-9]", status) is not None and status != b"101" and all(
        NAME.fullmatch(name) and VALUE.fullmatch(value) and name not in OF_A_HOP and (name != b"te" or value.lower() == b"trailers")
        and (name != b"content-length" or re.fullmatch(rb"[0-9]+", value) and int(value) < 1 << 63) for name, value in more)
    assert (verdict, left) == ("done" if legal else "MALFORMED_HEAD", 0)
    if legal:
        assert http2_text_fields("response", text) == [(b":status", status), *more]


@given(st.lists(st.one_of(usual, odd), max_size=6))
def test_trailers_never_frame_route_or_hide_a_pseudo_field(fields):
    verdict, text, left = http2_block_text("trailers", fields)
    legal = all(NAME.fullmatch(name) and VALUE.fullmatch(value) and name not in OF_A_HOP and (name != b"te" or value.lower() == b"trailers")
                for name, value in fields)
    assert (verdict, left) == ("done" if legal else "MALFORMED_HEAD", 0)
    kept = http2_text_fields("trailers", text) if text else None
    for name, value in kept or []:
        assert (name, value) in fields
        assert name not in (b"host", b"content-length", b"te", b"cookie")


@given(st.integers(0, 400), st.integers(0, 3000))
def test_block_over_its_limit_is_too_large_whatever_it_says(limit, size):
    fields = [*PSEUDO, (b"x-a", b"v" * size)]
    verdict, _, left = http2_block_text("request", fields, True, False, limit)
    counted = sum(len(name) + len(value) + 32 for name, value in fields)
    assert (verdict, left) == ("done" if counted <= limit else "HEAD_TOO_LARGE", 0)
