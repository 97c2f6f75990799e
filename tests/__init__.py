"""The suite. Each file stands alone: `pytest tests/proxy/test_keepalive.py`."""
