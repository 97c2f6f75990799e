"""Times of writing one edited head with the usual forwarding fields, by the kind of head."""

import pytest

from bench.heads import REQUESTS, RESPONSE
from meshcore._fastpath import time_edit

REPEAT = 1_000


@pytest.mark.parametrize("kind", REQUESTS)
def test_editing_a_request_head(timed, kind):
    timed(lambda: time_edit(REQUESTS[kind], REPEAT), times=REPEAT)


def test_editing_a_response_head(timed):
    timed(lambda: time_edit(RESPONSE, REPEAT, True), times=REPEAT)
