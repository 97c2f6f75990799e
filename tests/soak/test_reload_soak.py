"""The soak in small: a few thousand requests, a reload every tenth of a second, every one accounted for."""

import pytest

from tests.soak.reload_soak import soak


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_duplicated_or_refused_while_endpoints_come_and_go(only_meshcore, workers):
    account = soak(12_000, reload_every_s=0.1, connections=32, workers=workers)
    assert not account.troubles, f"{account}: {account.troubles}"
    assert account.reloads >= 3
