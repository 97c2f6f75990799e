"""Scenarios: servers, clients, one proxy configuration, expectations; in one short test each.

`raw_server`, `raw_client` and `proxy` are the fixtures (see tests/conftest.py); this package is what they hand out.
"""
