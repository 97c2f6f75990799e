"""`meshctl login`: an operator's certificate, for a join token or for the one he has."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from controlplane.identity.certificates import identity_of, pem_of
from controlplane.identity.keys import PrivateKey
from meshcore.api import identity_pb2, identity_pb2_grpc

from .connection import SERVER_NAME, credentials, told, where
from .output import is_json, output_option, show_json

EPILOG = """
\b
Examples:
  meshctl --control-plane mesh.example.org:8086 login --roots root.pem --token-file token
  meshctl --control-plane mesh.example.org:8086 login          another one, before the old one has run out
"""


@click.command(epilog=EPILOG)
@click.option("--roots", metavar="FILE", help="PEM with the roots to trust; `root.pem` of the control plane's folder.")
@click.option("--token-file", metavar="FILE", help="A join token, as `meshctl join-token create` printed it; - is stdin.")
@output_option
@click.pass_context
def login(ctx: click.Context, roots: str | None, token_file: str | None, output: str) -> None:
    """Get a certificate to ask a control plane with from elsewhere."""
    address, folder = where(ctx)
    if address.startswith("unix:"):
        raise click.UsageError("the socket needs no certificate; name a host:port with --control-plane")
    trusted: grpc.ChannelCredentials
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if token_file is not None:
        if roots is None:
            raise click.UsageError("--token-file needs --roots: a control plane nobody vouches for gets no token")
        bundle = Path(roots).read_bytes()
        token = (sys.stdin.read() if token_file == "-" else Path(token_file).read_text()).strip()
        trusted = grpc.ssl_channel_credentials(bundle)
    else:
        bundle = Path(roots or folder / "roots.pem").read_bytes()
        token = ""
        trusted = credentials(folder)
    key = PrivateKey.generate()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key.signer, hashes.SHA256())
    with grpc.secure_channel(address, trusted, options=[("grpc.ssl_target_name_override", SERVER_NAME)]) as opened:
        try:
            answer = identity_pb2_grpc.IdentityStub(opened).Certify(
                identity_pb2.CertifyRequest(
                    token=token.encode(),
                    certificate_signing_request=request.public_bytes(serialization.Encoding.DER),
                ),
                timeout=15,
            )
        except grpc.RpcError as error:
            raise click.ClickException(told(error, address)) from None
    chain = [
        x509.load_der_x509_certificate(one) for one in (answer.leaf_certificate, *answer.intermediate_certificates)
    ]
    key.save(folder / "key.pem")
    for name, octets in (("chain.pem", pem_of(chain)), ("roots.pem", bundle)):
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(octets)
    identity, until_s = str(identity_of(chain[0])), answer.valid_until.ToSeconds()
    if is_json(output):
        show_json({"identity": identity, "valid_until_s": until_s, "folder": str(folder)})
    else:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(until_s))
        click.echo(f"{identity}, until {until}, in {folder}")
