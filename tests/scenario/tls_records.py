"""A TLS 1.3 client that writes any record it likes, valid or hostile, once ssl has done its handshake. Knows no proxy."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE, DATA = 22, 23
KEY_UPDATE = b"\x18\x00\x00\x01\x00"  # not asking for one in return
KEY_UPDATE_BOTH = b"\x18\x00\x00\x01\x01"


class RecordClient:
    """After the handshake every record is ours: `send(type, content)`. RFC 8446 5.2, 7.1 to 7.3."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, name: str, keylog: Path) -> None:
        context.keylog_filename = str(keylog)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
        self.sock = socket.create_connection(address, 10)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(outgoing.read())
                incoming.write(self.sock.recv(65536))
        self.sock.sendall(outgoing.read())
        self._long = tls.cipher()[2] == 256
        words = [line.split() for line in keylog.read_text().splitlines()]
        self._secret = next(bytes.fromhex(line[2]) for line in words if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        self._rekey()

    def _expand(self, label: str, n: int) -> bytes:
        text = b"tls13 " + label.encode()
        info = struct.pack(">HB", n, len(text)) + text + b"\0"
        return HKDFExpand(hashes.SHA384() if self._long else hashes.SHA256(), n, info).derive(self._secret)

    def _rekey(self) -> None:
        self._key = AESGCM(self._expand("key", 32 if self._long else 16))
        self._iv = int.from_bytes(self._expand("iv", 12), "big")
        self._number = 0

    def record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """One sealed record; `content` may be empty."""
        inner = content + bytes([kind]) + bytes(padding)
        head = struct.pack(">BHH", DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._key.encrypt(nonce, inner, head)

    def key_update(self, message: bytes = KEY_UPDATE) -> bytes:
        """A KeyUpdate, and its consequence for what is sealed after it."""
        sealed = self.record(HANDSHAKE, message)
        self._secret = self._expand("traffic upd", 48 if self._long else 32)
        self._rekey()
        return sealed

    def is_closed(self) -> bool:
        """Wait for the end; False when the other side goes on waiting for ours."""
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.sock.close()
