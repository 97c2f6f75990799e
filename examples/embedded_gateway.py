"""A gateway in your own program: callers need a token, and what lies behind learns who they are.

    python examples/embedded_gateway.py 127.0.0.1:9001
    curl -H 'authorization: Bearer s3cret' http://127.0.0.1:8080/
"""

import sys

import meshcore

TOKENS = {"Bearer s3cret": "ada"}
health = {"name": "health", "match": {"path": "/healthz"}, "respond": {"body": "fine\n"}}
listener = {"name": "web", "address": "127.0.0.1:8080"}
cluster = {"name": "api", "endpoints": sys.argv[1:] or ["127.0.0.1:9001"]}
config = {"listeners": [listener], "routes": [health, {"name": "api", "to": "api"}], "clusters": [cluster]}
proxy = meshcore.Proxy(config, install_signals=True)


@proxy.on_request(route="api")  # only this route waits for Python; /healthz never does
def authenticate(request):
    user = TOKENS.get(request.headers.get("authorization"))
    if user is None:
        return meshcore.Response(401, headers={"www-authenticate": "Bearer"})
    request.headers["x-user"] = user  # in place of what the caller may have put there


with proxy:
    print("http://%s:%d" % proxy.addresses["web"], flush=True)
    proxy.wait()  # SIGTERM or Ctrl-C drains and ends it
