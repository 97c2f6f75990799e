"""An application for scenarios: an HTTP server in asyncio that tells its name and who called. Ends on SIGTERM, gently.

    python tests/agent/app_program.py PORT NAME [HOST]
"""

import asyncio
import signal
import sys


async def answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: set[asyncio.StreamWriter]) -> None:
    open_.add(writer)
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            await reader.readexactly(int(fields.get("content-length", "0")))
            body = f"{name} {head.split(' ')[0]} {head.split(' ')[1]} by {fields.get('l5d-client-id', 'nobody')}\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass
    finally:
        open_.discard(writer)
        writer.close()


async def main(port: int, name: str, host: str = "127.0.0.1") -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    open_: set[asyncio.StreamWriter] = set()
    server = await asyncio.start_server(lambda reader, writer: answer(name, reader, writer, open_), host, port)
    print(f"{name} listens on {server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()
    for writer in open_:
        writer.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
