"""One gateway, three times: it reads `x-user` and sets `x-greeting`. Measured by bench.filters.

with_meshcore.py, with_aiohttp.py and with_mitmproxy.py are programs: LISTEN_PORT BACKEND_PORT.
"""
