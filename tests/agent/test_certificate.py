"""Certificates as they come from the control plane: judged like a stranger's, kept on disk, renewed in time."""

import os
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controlplane.identity import Authority
from controlplane.spiffe import SpiffeId
from meshcore.agent.certificate import Certificate, CertificateError, Request, load, roots_of_pem, save
from meshcore.agent.state_directory import StateDirectory, StateError

ME = SpiffeId.of("mesh.test", "shop", "web")
NOW = time.time()


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.new_root("mesh.test", NOW)


def issued(authority: Authority, request: Request, identity: SpiffeId = ME, lifetime_s: int = 3_600, now_s: float = NOW) -> list[bytes]:
    key = x509.load_der_x509_csr(request.der).public_key()
    return [one.public_bytes(Encoding.DER) for one in authority.issue(key, identity, now_s, lifetime_s).chain]


def test_a_certificate_for_our_key_and_identity_is_taken(root):
    request = Request(str(ME))
    found = request.accept(issued(root, request), [root.root], NOW)
    assert found.identity == str(ME) and found.is_usable(NOW) and not found.is_usable(found.not_after_s)
    assert b"PRIVATE KEY" in found.key_pem and found.chain_pem.count(b"BEGIN CERTIFICATE") == 1


def test_a_chain_through_an_intermediate_is_taken_with_it(root):
    request = Request(str(ME))
    found = request.accept(issued(root.new_intermediate(NOW), request), [root.root], NOW)
    assert found.chain_pem.count(b"BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize("wrong", ["key", "identity", "root", "expired", "garbage", "nothing", "too many"])
def test_a_certificate_that_was_not_asked_for_is_refused(root, wrong):
    request = Request(str(ME))
    parts, roots, now_s = issued(root, request), [root.root], NOW
    if wrong == "key":
        parts = issued(root, Request(str(ME)))
    elif wrong == "identity":
        parts = issued(root, request, SpiffeId.of("mesh.test", "shop", "db"))
    elif wrong == "root":
        roots = [Authority.new_root("mesh.test", NOW).root]
    elif wrong == "expired":
        now_s = NOW + 7_200
    elif wrong == "garbage":
        parts = [b"\x30\x03\x02\x01\x01"]
    elif wrong == "nothing":
        parts = []
    else:
        parts = parts * 6
    with pytest.raises(CertificateError):
        request.accept(parts, roots, now_s)


def test_what_was_saved_is_used_after_a_restart_while_it_holds(root, tmp_path):
    state = StateDirectory(tmp_path / "state")
    request = Request(str(ME))
    found = request.accept(issued(root, request), [root.root], NOW)
    save(found, state)
    assert load(str(ME), [root.root], state, NOW) == found
    assert load(str(ME), [root.root], state, NOW + 7_200) is None
    assert load("spiffe://mesh.test/ns/shop/sa/db", [root.root], state, NOW) is None
    assert load(str(ME), [Authority.new_root("mesh.test", NOW).root], state, NOW) is None
    for path in state.path.iterdir():
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_half_a_pair_is_told(root, tmp_path):
    state = StateDirectory(tmp_path / "state")
    request, other = Request(str(ME)), Request(str(ME))
    first = request.accept(issued(root, request), [root.root], NOW)
    second = other.accept(issued(root, other), [root.root], NOW)
    state.write("pair.pem", first.key_pem + second.chain_pem)
    with pytest.raises(StateError, match="not that of the certificate"):
        load(str(ME), [root.root], state, NOW)
    state.write("pair.pem", b"what is this")
    with pytest.raises(StateError, match="cannot be read"):
        load(str(ME), [root.root], state, NOW)


def test_the_next_one_is_asked_for_after_six_to_seven_tenths_of_its_life():
    certificate = Certificate("spiffe://d/x", b"", b"", 1_000.0, 2_000.0)
    assert certificate.renew_at_s(0.0) == 1_700.0
    assert certificate.renew_at_s(1.0) == pytest.approx(1_600.0)
    assert 1_600.0 <= certificate.renew_at_s() <= 1_700.0


def test_no_text_form_shows_the_key(root):
    request = Request(str(ME))
    found = request.accept(issued(root, request), [root.root], NOW)
    assert "PRIVATE" not in repr(found) and found.key_pem.decode() not in str(found)


def test_a_bundle_without_a_root_is_no_bundle():
    for data in (b"", b"hello", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"):
        with pytest.raises(CertificateError):
            roots_of_pem(data)
