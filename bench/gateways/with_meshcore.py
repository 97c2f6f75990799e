"""The gateway as a meshcore filter; a second route, /plain, has none."""

import signal
import sys

import meshcore

listen, backend = sys.argv[1:3]
proxy = meshcore.Proxy(
    {
        "workers": 1,
        "listeners": [{"name": "web", "address": f"127.0.0.1:{listen}"}],
        "routes": [
            {"name": "plain", "match": {"prefix": "/plain"}, "to": "backend"},
            {"name": "greeted", "to": "backend"},
        ],
        "clusters": [{"name": "backend", "endpoints": [f"127.0.0.1:{backend}"]}],
    }
)


@proxy.on_request(route="greeted")
def greet(request):
    request.headers["x-greeting"] = f"hello {request.headers.get('x-user', 'stranger')}"


with proxy:
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
