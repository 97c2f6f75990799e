"""PROXY protocol headers: what is one, what cannot become one, and a slow oracle made of `ipaddress` and `struct`."""

import ipaddress
import re
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshcore._fastpath import read_proxy_header, write_proxy_header

MORE, REFUSED = 0, 16
V1, V2 = 1, 2
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
NOBODY = {"is_local": True, "source": b"", "source_port": 0, "destination": b"", "destination_port": 0}


def somebody(size_bytes, version, source, source_port, destination, destination_port):
    return {"size_bytes": size_bytes, "version": version, "is_local": False, "source": source,
            "source_port": source_port, "destination": destination, "destination_port": destination_port}


# --- the oracle: is all of `data` one header? -----------------------------------------------------------------------

def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def line_values(data: bytes):
    if len(data) > 107 or data.find(b"\r\n") != len(data) - 2:
        return None
    if re.fullmatch(rb"PROXY UNKNOWN( .*)?\r\n", data, re.DOTALL):
        return {"size_bytes": len(data), "version": 1, **NOBODY}
    words = data[:-2].split(b" ")
    if len(words) != 6 or words[0] != b"PROXY" or words[1] not in (b"TCP4", b"TCP6"):
        return None
    if b"%" in data or not all(re.fullmatch(rb"0|[1-9][0-9]{0,4}", port) and int(port) <= 65535 for port in words[4:]):
        return None
    address_of = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        source, destination = (address_of(word.decode("ascii")).packed for word in words[2:4])
    except ValueError:
        return None
    return somebody(len(data), 1, source, int(words[4]), destination, int(words[5]))


def binary_values(data: bytes):
    if len(data) < 16 or not data.startswith(SIGNATURE):
        return None
    command, family, length = struct.unpack("!BBH", data[12:16])
    if len(data) != 16 + length or len(data) > 4096 or command not in (0x20, 0x21):
        return None
    nobody = {"size_bytes": len(data), "version": 2, **NOBODY}
    if command == 0x20 or family == 0:
        return nobody
    shape = {0x11: "!4s4sHH", 0x21: "!16s16sHH", 0x31: "!108s108s"}.get(family)
    if shape is None or length < struct.calcsize(shape):
        return None
    at, checksums = 16 + struct.calcsize(shape), []
    while at < len(data):
        if at + 3 > len(data):
            return None
        kind, size = struct.unpack("!BH", data[at:at + 3])
        at += 3 + size
        if at > len(data) or (kind == 3 and size != 4):
            return None
        if kind == 3:
            checksums.append(at - 4)
    if len(checksums) > 1:
        return None
    for at in checksums:
        if crc32c(data[:at] + bytes(4) + data[at + 4:]) != int.from_bytes(data[at:at + 4], "big"):
            return None
    if family == 0x31:
        return nobody
    source, destination, *ports = struct.unpack_from(shape, data, 16)
    return somebody(len(data), 2, source, ports[0], destination, ports[1])


def oracle(data: bytes, versions: int = V1 | V2):
    """The values of the header in front of `data`, None when no prefix of it is one."""
    for size in [end.end() for end in re.finditer(rb"\r\n", data[:107])]:
        if versions & V1 and (values := line_values(data[:size])):
            return values
    if versions & V2 and len(data) >= 16:
        return binary_values(data[:16 + int.from_bytes(data[14:16], "big")])
    return None


def test_the_oracle_knows_the_checksum_of_the_catalogues():
    assert crc32c(b"123456789") == 0xE3069283


# --- written by hand -------------------------------------------------------------------------------------------------

ONE = bytes(15) + b"\x01"
LONG6 = b"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"


def binary(command=0x21, family=0x11, block=b"\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb", tlvs=b"", length=None):
    length = len(block + tlvs) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, length) + block + tlvs


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(header: bytes, at: int) -> bytes:
    """`header` with the right checksum in the four octets at `at`."""
    return header[:at] + struct.pack("!I", crc32c(header[:at] + bytes(4) + header[at + 4:])) + header[at + 4:]


FOUR = (b"\xc0\x00\x02\x07", 56324, b"\xc6\x33\x64\x01", 443)
CHECKED = with_checksum(binary(tlvs=tlv(3, bytes(4)) + tlv(4, b"pad")), 31)

TAKEN = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n": somebody(45, 1, *FOUR),
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n":
        somebody(56, 1, b"\xff" * 4, 65535, b"\xff" * 4, 65535),
    b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n": somebody(32, 1, bytes(4), 0, bytes(4), 0),
    b"PROXY TCP6 ::1 :: 1 2\r\n": somebody(23, 1, ONE, 1, bytes(16), 2),
    b"PROXY TCP6 ::ffff:192.0.2.7 2001:DB8::1 1 2\r\n":
        somebody(45, 1, bytes(10) + b"\xff\xff\xc0\x00\x02\x07", 1, b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01", 2),
    b"PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n":
        somebody(48, 1, bytes.fromhex("00010002000300040005000600070000"), 1,
                 bytes.fromhex("00000002000300040005000600070008"), 2),
    b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n":
        somebody(104, 1, b"\xff" * 16, 65535, b"\xff" * 16, 65535),
    b"PROXY TCP6 " + LONG6 + b" " + LONG6[:-1] + b" 1 2\r\n":
        somebody(107, 1, b"\xff" * 16, 1, b"\xff" * 15 + b"\x19", 2),
    b"PROXY UNKNOWN\r\n": {"size_bytes": 15, "version": 1, **NOBODY},
    b"PROXY UNKNOWN \r\n": {"size_bytes": 16, "version": 1, **NOBODY},
    b"PROXY UNKNOWN a\rb\nc \0\xff\r\r\n": {"size_bytes": 25, "version": 1, **NOBODY},
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": {"size_bytes": 107, "version": 1, **NOBODY},
    binary(): somebody(28, 2, *FOUR),
    binary(family=0x21, block=ONE + bytes(16) + b"\x00\x01\x00\x02"): somebody(52, 2, ONE, 1, bytes(16), 2),
    binary(tlvs=tlv(1, b"h2") + tlv(0xEE, b"")): somebody(36, 2, *FOUR),
    binary(tlvs=tlv(4, bytes(4065))): somebody(4096, 2, *FOUR),
    CHECKED: somebody(41, 2, *FOUR),
    binary(family=0x31, block=bytes(216)): {"size_bytes": 232, "version": 2, **NOBODY},
    binary(family=0x00, block=b""): {"size_bytes": 16, "version": 2, **NOBODY},
    binary(family=0x00, block=b"\x03skipped"): {"size_bytes": 24, "version": 2, **NOBODY},
    binary(command=0x20, family=0x00, block=b""): {"size_bytes": 16, "version": 2, **NOBODY},
    binary(command=0x20, family=0x77, block=b"\x03skipped"): {"size_bytes": 24, "version": 2, **NOBODY},
}

# With the last octet it is certain that no header comes of it; without, it is not.
CERTAIN = [
    b"G", b"PROXY  ", b"PROXY\t", b"Proxy"[:2], b"PROXY T4", b"PROXY TCP5", b"PROXY TCP4  ", b"PROXY TCP4\r",
    b"PROXY X", b"PROXY UD", b"PROXY UNKNOWNS", b"PROXY UNKNOWN\n", b"PROXY UNKNOWN\r\r", b"PROXY UNKNOWN " + b"x" * 92,
    b"PROXY UNKNOWN " + b"x" * 91 + b"\rx",
    b"PROXY TCP4 256", b"PROXY TCP4 00", b"PROXY TCP4 01", b"PROXY TCP4 1.2.3 ", b"PROXY TCP4 1.2.3.4.",
    b"PROXY TCP4 1.2.3.4\r", b"PROXY TCP4 1..", b"PROXY TCP4 .", b"PROXY TCP4 -", b"PROXY TCP4 :", b"PROXY TCP4 0x",
    b"PROXY TCP4 1.2.3.4 :",
    b"PROXY TCP4 1.2.3.4 5.6.7.8  ", b"PROXY TCP4 1.2.3.4 5.6.7.8 +", b"PROXY TCP4 1.2.3.4 5.6.7.8 65536",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 00", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02",
    b"PROXY TCP6 1.", b"PROXY TCP6 ::1.2.3.256", b"PROXY TCP6 ::01.", b"PROXY TCP6 :1", b"PROXY TCP6 :::",
    b"PROXY TCP6 1::2::", b"PROXY TCP6 12345", b"PROXY TCP6 g", b"PROXY TCP6 [", b"PROXY TCP6 fe80::1%",
    b"PROXY TCP6 1:2:3:4:5:6:7 ",
    b"PROXY TCP6 1:2:3:4:5:6:7:8:", b"PROXY TCP6 1:2:3:4:5:6:7::8", b"PROXY TCP6 ::1:2:3:4:5:6:7:", b"PROXY TCP6 1: ",
    b"PROXY TCP6 1:2:3:4:5:1.", b"PROXY TCP6 1:2:3:4:5:6:7:1.", b"PROXY TCP6 ::1:2:3:4:5:6:1.", b"PROXY TCP6  ",
    b"PROXY TCP6 ::1 1.",
    b"PROXY TCP6 " + LONG6 + b" " + LONG6, b"PROXY TCP6 " + LONG6 + b" " + LONG6[:-1] + b" 12",
    b"PROXY TCP6 " + LONG6 + b" " + LONG6[:-1] + b" 1 23",
    SIGNATURE[:11] + b"\r", SIGNATURE + b"\x11", SIGNATURE + b"\x22", SIGNATURE + b"\x31",
    *(SIGNATURE + bytes([0x21, family]) for family in (1, 2, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41, 0xFF)),
    SIGNATURE + b"\x21\x11\x00\x0b", SIGNATURE + b"\x21\x21\x00\x23", SIGNATURE + b"\x21\x31\x00\xd7",
    SIGNATURE + b"\x21\x11\x00\x0d", SIGNATURE + b"\x21\x11\x00\x0e", SIGNATURE + b"\x21\x11\x0f\xf1",
    SIGNATURE + b"\x20\x00\x10",
    binary(tlvs=b"\x04\x01", length=40), binary(tlvs=b"\x04\x00\x0e", length=28),
    binary(tlvs=b"\x04\x00\x0c", length=28), binary(tlvs=b"\x03", length=18), binary(tlvs=b"\x03", length=20),
    binary(tlvs=b"\x03\x01", length=400),
    binary(tlvs=b"\x03\x00\x03", length=40), binary(tlvs=b"\x03\x00\x05", length=40),
    binary(tlvs=tlv(3, bytes(4)) + b"\x03", length=40),
    CHECKED[:-1] + b"x", CHECKED[:16] + b"\xc1" + CHECKED[17:-1] + b"d",
]


@pytest.mark.parametrize("data", TAKEN)
def test_a_valid_header_is_taken_apart_and_what_follows_is_left(data):
    assert read_proxy_header(data, V1 | V2) == TAKEN[data] == oracle(data)
    assert read_proxy_header(data + b"\r\nGET", V1 | V2) == TAKEN[data]


@pytest.mark.parametrize("data", TAKEN)
def test_every_prefix_of_a_valid_header_awaits_more(data):
    assert {read_proxy_header(data[:size], V1 | V2) for size in range(len(data))} == {MORE}


@pytest.mark.parametrize("data", CERTAIN)
def test_a_bad_header_is_refused_with_the_octet_that_makes_it_certain(data):
    assert read_proxy_header(data[:-1], V1 | V2) == MORE
    assert read_proxy_header(data, V1 | V2) == REFUSED
    assert read_proxy_header(data + b"\r\n" + bytes(4096), V1 | V2) == REFUSED


@pytest.mark.parametrize("data", TAKEN)
def test_a_version_the_listener_does_not_read_is_refused_by_its_first_octet(data):
    version = TAKEN[data]["version"]
    assert read_proxy_header(data, version) == TAKEN[data]
    assert {read_proxy_header(data[:size], 3 - version) for size in range(1, len(data) + 1)} == {REFUSED}
    assert read_proxy_header(b"", 3 - version) == MORE
    assert read_proxy_header(b"", 0) == read_proxy_header(data, 0) == REFUSED


def test_written_headers_are_these_octets():
    assert write_proxy_header(1, *FOUR) == b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
    assert write_proxy_header(1, ONE, 0, b"\xff" * 16, 65535) == (
        b"PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:0001 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0 65535\r\n")
    assert write_proxy_header(2, *FOUR) == binary()
    assert write_proxy_header(2, ONE, 1, bytes(16), 2) == binary(
        family=0x21, block=ONE + bytes(16) + b"\x00\x01\x00\x02")
    assert write_proxy_header(1, b"", 0, b"", 0) == b"PROXY UNKNOWN\r\n"
    assert write_proxy_header(2, b"", 0, b"", 0) == binary(command=0x20, family=0, block=b"")


# --- drawn by hypothesis ---------------------------------------------------------------------------------------------

ports = st.integers(0, 65535) | st.sampled_from([0, 9, 10, 99, 65535])
groups = st.sampled_from(["", "", "0", "f", "ffff", "0001", "255", "12", "10000", "g"])
near_ipv6 = st.lists(groups, max_size=10).map(":".join)
near_ipv4 = st.lists(st.sampled_from(["0", "1", "00", "255", "256", "25", ""]), min_size=3, max_size=5).map(".".join)
near_address = (near_ipv6 | near_ipv4 | st.tuples(near_ipv6, near_ipv4).map(":".join)
                | st.tuples(st.just("ffff:" * 5 + "ffff"), near_ipv4).map(":".join))
spelled_ipv6 = st.builds(
    lambda address, spell: spell(address), st.ip_addresses(v=6) | st.integers(0, 1).map(ipaddress.IPv6Address),
    st.sampled_from([str, lambda address: address.exploded, lambda address: address.exploded.upper(),
                     lambda address: f"::{ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)}"]))


def line(family, source, destination, source_port, destination_port) -> bytes:
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode("utf-8")


lines = (st.builds(line, st.just("TCP4"), st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports)
         | st.builds(line, st.just("TCP6"), spelled_ipv6, spelled_ipv6, ports, ports)
         | st.binary(max_size=91).filter(lambda text: b"\r\n" not in text).map(
             lambda text: b"PROXY UNKNOWN " + text + b"\r\n"))
tlvs = st.lists(st.builds(tlv, st.sampled_from([0, 1, 2, 4, 5, 0x20, 0xE0, 0xFF]), st.binary(max_size=20)), max_size=4)


@st.composite
def binaries(draw):
    command, family, n = draw(st.sampled_from([
        (0x21, 0x11, 12), (0x21, 0x21, 36), (0x21, 0x31, 216), (0x21, 0, 5), (0x20, 0, 0), (0x20, 0x99, 7)]))
    before, behind = draw(tlvs), draw(tlvs)
    block = draw(st.binary(min_size=n, max_size=n))
    if draw(st.booleans()):
        at = 16 + n + len(b"".join(before)) + 3
        return with_checksum(binary(command, family, block, b"".join([*before, tlv(3, bytes(4)), *behind])), at)
    return binary(command, family, block, b"".join(before + behind))


headers = lines | binaries()
edits = st.lists(st.tuples(st.sampled_from(["set", "insert", "delete", "cut"]), st.integers(0, 400),
                           st.integers(0, 255) | st.sampled_from(b" \r\n.:0159fP\x03\x11\x20\x21")), max_size=4)


def edited(data: bytes, changes) -> bytes:
    for change, at, octet in changes:
        at %= len(data) + 1
        middle = bytes([octet]) if change in ("set", "insert") else b""
        data = data[:at] + middle + (b"" if change == "cut" else data[at + (change != "insert"):])
    return data


def read_in_pieces(data: bytes, ends):
    for end in [*sorted(end % (len(data) + 1) for end in ends), len(data)]:
        verdict = read_proxy_header(data[:end], V1 | V2)
        if verdict != MORE:
            break
    return verdict


def completed(data: bytes) -> bytes:
    """A valid header that begins with `data`, found octet by octet: as long as MORE is true there is a next one."""
    while read_proxy_header(data, V1 | V2) == MORE:
        text = b"\n\r :.0PROXYTC4UNKWN" if data[-1:] == b"\r" else b"\r\n :.0PROXYTC4UNKWN"
        order = text if data[:1] == b"P" else range(256)
        data += next(bytes([octet]) for octet in order if read_proxy_header(data + bytes([octet]), V1 | V2) != REFUSED)
    return data


def agree(data: bytes):
    verdict, expected = read_proxy_header(data, V1 | V2), oracle(data)
    if isinstance(verdict, dict):
        assert verdict == expected
        return
    assert expected is None
    assert verdict in (MORE, REFUSED)
    if verdict == MORE and not (data[:1] == b"\r" and b"\x03" in data[16:]):       # a checksum is judged at the end
        assert oracle(completed(data)) is not None


@given(st.sampled_from([1, 2]), st.sampled_from([4, 16]), st.data())
def test_what_is_written_reads_back_the_same(version, n, data):
    address = st.binary(min_size=n, max_size=n)
    values = data.draw(st.tuples(address, ports, address, ports))
    written = write_proxy_header(version, *values)
    assert read_proxy_header(written, version) == somebody(len(written), version, *values) == oracle(written)


@given(headers)
def test_every_prefix_of_a_drawn_header_awaits_more(data):
    assert read_proxy_header(data, V1 | V2) == oracle(data) is not None
    assert {read_proxy_header(data[:size], V1 | V2) for size in range(len(data))} == {MORE}


@given(headers, edits, st.lists(st.integers(0, 400), max_size=6))
def test_the_verdict_does_not_depend_on_the_cut(data, changes, ends):
    data = edited(data, changes) + b"GET / HTTP/1.1\r\n\r\n"
    assert read_in_pieces(data, ends) == read_in_pieces(data, range(len(data))) == read_proxy_header(data, V1 | V2)


@given(headers, edits)
@example(CHECKED, [("set", 31, 0)])
@example(CHECKED, [("set", 40, 0)])
def test_an_edited_header_means_what_the_oracle_says(data, changes):
    agree(edited(data, changes))


@given(st.sampled_from(["TCP4", "TCP6"]), near_address, near_address, st.tuples(ports, ports), st.integers(0, 110))
@example("TCP6", LONG6.decode(), LONG6[:-1].decode(), (1, 23), 106)
def test_an_almost_valid_line_means_what_the_oracle_says(family, source, destination, both_ports, size):
    data = line(family, source, destination, *both_ports)
    agree(data)
    agree(data[:size])


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, binary(length=20)]),
       st.binary(max_size=40))
def test_octets_at_random_mean_what_the_oracle_says(start, rest):
    agree(start + rest)
