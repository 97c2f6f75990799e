"""Times of reading one head, policy included, by the kind of head."""

import pytest

from bench.heads import REQUESTS, RESPONSE
from meshcore._fastpath import time_head

REPEAT = 1_000


@pytest.mark.parametrize("kind", REQUESTS)
def test_reading_a_request_head(timed, kind):
    timed(lambda: time_head(REQUESTS[kind], REPEAT), times=REPEAT)


def test_reading_a_response_head(timed):
    timed(lambda: time_head(RESPONSE, REPEAT, True), times=REPEAT)
