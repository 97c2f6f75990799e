"""Times of decoding a chunked body, by the size of its chunks."""

import pytest

from meshcore._fastpath import time_chunks

REPEAT = 100


def chunked(body_bytes: int, chunk_bytes: int) -> bytes:
    chunk = b"%x\r\n" % chunk_bytes + b"x" * chunk_bytes + b"\r\n"
    return chunk * (body_bytes // chunk_bytes) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunk_bytes", [16, 560, 8192])
def test_decoding_a_chunked_body_of_8_kib(timed, chunk_bytes):
    body = chunked(8192 // chunk_bytes * chunk_bytes, chunk_bytes)
    timed(lambda: time_chunks(body, REPEAT), times=REPEAT)
