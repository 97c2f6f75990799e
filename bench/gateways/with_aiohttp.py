"""The gateway as one writes it with aiohttp: a server whose handler calls a client.

It does what the others do: bodies of any size pass as they come instead of being collected, hop-by-hop
fields stay behind, Via and X-Forwarded-For are added.
"""

import sys

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

listen, backend = sys.argv[1:3]
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


async def open_session(app):
    # As fast as it goes: no limit of connections, no cookies, bodies not decoded.
    app["session"] = ClientSession(
        connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), auto_decompress=False
    )
    yield
    await app["session"].close()


def end_to_end(headers):
    dropped = HOP_BY_HOP | {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


async def gateway(request):
    headers = end_to_end(request.headers)
    headers.append(("x-greeting", f"hello {request.headers.get('x-user', 'stranger')}"))
    headers.append(("x-forwarded-for", request.remote))
    headers.append(("via", "1.1 aiohttp"))
    async with request.app["session"].request(
        request.method,
        f"http://127.0.0.1:{backend}{request.raw_path}",
        headers=headers,
        data=request.content if request.body_exists else None,
        allow_redirects=False,
    ) as answer:
        response = web.StreamResponse(status=answer.status, headers=end_to_end(answer.headers))
        await response.prepare(request)
        async for part in answer.content.iter_any():
            await response.write(part)
        await response.write_eof()
        return response


app = web.Application()
app.cleanup_ctx.append(open_session)
app.router.add_route("*", "/{path:.*}", gateway)
web.run_app(app, host="127.0.0.1", port=int(listen), access_log=None, print=None)
