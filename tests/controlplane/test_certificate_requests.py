"""Which signing requests are accepted, and that nothing but the key is taken from them."""

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.errors import Denied
from controlplane.identity.requests import key_of
from tests.controlplane.asking import new_key, request

GOOD = request()


@pytest.mark.parametrize(
    "make",
    [
        new_key,
        lambda: new_key(ec.SECP384R1),
        lambda: rsa.generate_private_key(65_537, 2_048),
    ],
    ids=["P-256", "P-384", "RSA"],
)
def test_the_usual_keys_are_accepted_in_der_and_pem(make):
    key = make()
    for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM):
        assert key_of(request(key, encoding=encoding))[0] == key.public_key()


def test_ed25519_is_accepted():
    key = ed25519.Ed25519PrivateKey.generate()
    assert key_of(request(key, digest=None))[0] == key.public_key()


def test_a_request_made_by_openssl_is_accepted(tmp_path):
    command = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out r -subj /CN=web"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=20)
    key_of((tmp_path / "r").read_bytes())


@pytest.mark.parametrize(
    "make",
    [
        lambda: new_key(ec.SECP521R1),
        lambda: new_key(ec.SECP256K1),
        lambda: rsa.generate_private_key(65_537, 1_024),
        lambda: rsa.generate_private_key(65_537, 5_120),
        lambda: rsa.generate_private_key(3, 2_048),
        lambda: dsa.generate_private_key(2_048),
    ],
    ids=["P-521", "secp256k1", "RSA 1024", "RSA 5120", "exponent 3", "DSA"],
)
def test_other_keys_are_refused(make):
    with pytest.raises(Denied) as caught:
        key_of(request(make()))
    assert caught.value.reason == "bad_request"


def test_an_old_hash_is_refused():
    with pytest.raises(Denied, match="bad_request"):
        key_of(request(rsa.generate_private_key(65_537, 2_048), digest=hashes.SHA224))


def test_a_request_for_somebody_elses_key_is_refused():
    """Proof of possession: the key inside is exchanged for another of the same kind."""
    victim = new_key().public_key()
    parsed = x509.load_der_x509_csr(GOOD)
    old, new = (
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (parsed.public_key(), victim)
    )
    assert GOOD.count(old) == 1
    with pytest.raises(Denied):
        key_of(GOOD.replace(old, new))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        GOOD[:-1],
        GOOD + b"x",
        b"0" * 20_000,
        request(uris=["not a uri \x7f"])[:50],
    ],
    ids=["nothing", "one octet", "PEM of nothing", "cut short", "something behind", "zeros", "cut in the middle"],
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(Denied):
        key_of(data)


def test_names_are_wishes_of_which_only_uris_are_looked_at():
    _, wishes = key_of(request(uris=["spiffe://a/ns/b/sa/c"], dns=["bank.example.com"], common_name="root"))
    assert wishes == ("spiffe://a/ns/b/sa/c",)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_flipped_byte_makes_anything_but_a_refusal(at, by):
    """Or the same key and wishes: the count of unused bits in the signature's BIT STRING is signed by nobody, and may be 1
    where its last bit is 0."""
    data = bytearray(GOOD)
    data[at] ^= by
    try:
        found = key_of(bytes(data))
    except Denied:
        return
    assert found == key_of(GOOD)
