"""The gateway as a mitmproxy addon: `mitmdump --mode reverse:http://… -s with_mitmproxy.py`."""


def request(flow):
    flow.request.headers["x-greeting"] = f"hello {flow.request.headers.get('x-user', 'stranger')}"
