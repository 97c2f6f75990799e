"""Private keys: made, kept in files of mode 0600, never shown. Signs nothing by itself.

P-256 for everything we make: the one curve that every TLS stack of the last ten years speaks, with the cheapest
handshakes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAX_KEY_FILE_BYTES = 16_384


class KeyFileError(Exception):
    """A key file that is missing, broken or open to others."""


class PrivateKey:
    """A P-256 or P-384 key. Its text form, a copy and a pickle would be leaks: there are none."""

    __slots__ = ("_key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in ("secp256r1", "secp384r1"):
            raise KeyFileError("not a P-256 or P-384 key")
        self._key = key

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new P-256 key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: str | Path) -> PrivateKey:
        """From a PKCS#8 PEM file that nobody else can read."""
        path = Path(path)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode) or mode & 0o077:
                    raise KeyFileError(
                        f"{path}: mode {stat.S_IMODE(mode):04o} lets others read the key; chmod 600 {path}"
                    )
                data = file.read(MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
        return cls.from_pem(data, str(path))

    @classmethod
    def from_pem(cls, data: bytes, name: str = "the key") -> PrivateKey:
        """From PEM text without a passphrase."""
        try:
            key = serialization.load_pem_private_key(data[: MAX_KEY_FILE_BYTES + 1], None)
            return cls(key)  # type: ignore[arg-type]  # __init__ judges it
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The library's words may quote what it was given.
            raise KeyFileError(f"{name}: not a private key in unencrypted PEM") from None
        except KeyFileError as error:
            raise KeyFileError(f"{name}: {error}") from None

    def save(self, path: str | Path) -> None:
        """To a file of mode 0600 from its first byte on; it is there whole, or not at all."""
        path = Path(path)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(self.pem())
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise

    def pem(self) -> bytes:
        """PKCS#8, unencrypted: for the file, and for a TLS context of this process."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def signer(self) -> ec.EllipticCurvePrivateKey:
        """For the one who signs certificates."""
        return self._key

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def __repr__(self) -> str:
        return "<PrivateKey>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied")
