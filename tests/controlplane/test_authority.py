"""What an authority signs, judged by OpenSSL; and which keys and chains are no authority."""

import datetime
import pickle
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.errors import Denied
from controlplane.identity import Authority, AuthorityError, KeyFileError, PrivateKey, authority_files
from controlplane.identity.authority import BACKDATE_S, DAY_S, MIN_LEAF_S
from controlplane.identity.certificates import identity_of, pem_of, verified_identity
from controlplane.spiffe import SpiffeId
from tests.controlplane.openssl import Party, handshake, text_of, verify

DOMAIN = "mesh.example.org"
WEB = SpiffeId(DOMAIN, "shop", "web")
NOW_S = time.time()


def leaf_of(authority, identity=WEB, **words):
    key = PrivateKey.generate()
    return key, authority.issue(key.public, identity, NOW_S, **words)


@pytest.mark.parametrize("depth", [0, 1])
def test_openssl_and_python_accept_what_is_issued(tmp_path, depth):
    authority = Authority.new_root(DOMAIN, NOW_S)
    if depth:
        authority = authority.new_intermediate(NOW_S)
    key, leaf = leaf_of(authority)
    assert len(leaf.chain) == 1 + depth
    for purpose in ("sslclient", "sslserver"):
        assert verify(tmp_path, leaf.chain, pem_of([authority.root]), purpose=purpose) == "OK"
    bundle = pem_of([authority.root]).decode()
    other_key, other = leaf_of(authority, SpiffeId(DOMAIN, "shop", "cart"))
    seen = handshake(
        Party(tmp_path / "a", key, leaf.chain, bundle), Party(tmp_path / "b", other_key, other.chain, bundle)
    )
    assert seen == (f"spiffe://{DOMAIN}/ns/shop/sa/cart", str(WEB))
    assert verified_identity(leaf.chain, [authority.root], DOMAIN, NOW_S) == WEB


def test_a_leaf_has_one_name_two_uses_and_a_day():
    authority = Authority.new_root(DOMAIN, NOW_S)
    _, leaf = leaf_of(authority)
    text = text_of(leaf.chain[0])
    for line in (
        "X509v3 Subject Alternative Name: critical\n",
        f"URI:{WEB}\n",
        "CA:FALSE",
        "Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication\n",
        "NIST CURVE: P-256",
        "ecdsa-with-SHA256",
    ):
        assert line in text, line
    assert "DNS:" not in text and "IP Address" not in text
    assert leaf.not_after_s - int(NOW_S) == DAY_S
    assert leaf.not_before_s == int(NOW_S) - BACKDATE_S
    assert leaf.chain[0].not_valid_after_utc.timestamp() == leaf.not_after_s
    assert leaf.renew_at_s == pytest.approx(int(NOW_S) + 0.7 * DAY_S)
    serials = {leaf_of(authority)[1].serial for _ in range(50)}
    assert len(serials) == 50 and max(serials).bit_length() > 140


def test_no_leaf_outlives_its_authority_and_none_is_too_short_to_be_renewed():
    authority = Authority.new_root(DOMAIN, NOW_S, lifetime_s=DAY_S // 2)
    assert leaf_of(authority)[1].not_after_s == authority.not_after_s
    with pytest.raises(Denied):
        authority.issue(PrivateKey.generate().public, WEB, NOW_S + DAY_S // 2 - MIN_LEAF_S + 5)
    assert leaf_of(authority, lifetime_s=1)[1].not_after_s == int(NOW_S) + MIN_LEAF_S
    long = Authority.new_root(DOMAIN, NOW_S)
    assert leaf_of(long, lifetime_s=10**9)[1].not_after_s == int(NOW_S) + 7 * DAY_S


def test_an_identity_of_another_trust_domain_is_not_issued():
    with pytest.raises(Denied):
        leaf_of(Authority.new_root(DOMAIN, NOW_S), SpiffeId("other.example.org", "shop", "web"))


def test_a_stolen_key_of_the_mesh_cannot_imitate_a_web_site(tmp_path):
    """Name constraints: OpenSSL and our own verifier refuse a host name below a root of ours."""
    authority = Authority.new_root(DOMAIN, NOW_S)
    for name in (x509.DNSName("bank.example.com"), x509.IPAddress(__import__("ipaddress").ip_address("192.0.2.1"))):
        chain = [forged(authority, [x509.UniformResourceIdentifier(str(WEB)), name])]
        assert "excluded subtree violation" in verify(tmp_path, chain, pem_of([authority.root]))
        with pytest.raises(Denied):
            verified_identity(chain, [authority.root], DOMAIN, NOW_S)


def test_an_intermediate_signs_leaves_and_no_further_authority(tmp_path):
    intermediate = Authority.new_root(DOMAIN, NOW_S).new_intermediate(NOW_S)
    with pytest.raises(AuthorityError):
        intermediate.new_intermediate(NOW_S)
    assert "CA:TRUE, pathlen:0" in text_of(intermediate.chain[0])
    assert "CA:TRUE, pathlen:1" in text_of(intermediate.root)


@pytest.mark.parametrize(
    "names",
    [
        [],
        [
            x509.UniformResourceIdentifier(str(WEB)),
            x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/ns/shop/sa/admin"),
        ],
        [x509.UniformResourceIdentifier("spiffe://other.example.org/ns/shop/sa/web")],
        [x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/ns/dev/sa/ns/admin/x")],
        [x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}")],
    ],
    ids=["none", "two", "other domain", "longer path", "no path"],
)
def test_a_certificate_without_exactly_one_identity_of_ours_proves_nothing(names):
    authority = Authority.new_root(DOMAIN, NOW_S)
    with pytest.raises(Denied):
        verified_identity([forged(authority, names)], [authority.root], DOMAIN, NOW_S)


@pytest.mark.parametrize("change", ["expired", "not yet", "server only", "of another root", "an authority"])
def test_a_chain_that_does_not_hold_proves_nothing(change, tmp_path):
    authority = Authority.new_root(DOMAIN, NOW_S)
    roots, at_s = [authority.root], NOW_S
    chain = leaf_of(authority)[1].chain
    if change == "expired":
        at_s = NOW_S + DAY_S + 5
    elif change == "not yet":
        at_s = NOW_S - BACKDATE_S - 5
    elif change == "server only":
        chain = (forged(authority, [x509.UniformResourceIdentifier(str(WEB))], uses=[ExtendedKeyUsageOID.SERVER_AUTH]),)
    elif change == "of another root":
        roots = [Authority.new_root(DOMAIN, NOW_S).root]
    else:
        chain = (authority.new_intermediate(NOW_S).chain[0],)
    with pytest.raises(Denied):
        verified_identity(chain, roots, DOMAIN, at_s)
    if change in ("expired", "not yet", "of another root"):
        assert verify(tmp_path, chain, pem_of(roots), at_s=at_s) != "OK"


def forged(authority, names, uses=(ExtendedKeyUsageOID.CLIENT_AUTH,)):
    """What the owner of a stolen key might sign."""
    key = PrivateKey.generate()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.chain[0].subject)
        .public_key(key.public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(NOW_S - 60, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(NOW_S + 3600, datetime.UTC))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.ExtendedKeyUsage(list(uses)), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public), False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), True)
    return builder.sign(authority.key.signer, hashes.SHA256())


def foreign(*, ca=True, sign=True, path_length=0, constraint=None, curve=ec.SECP256R1):
    """A root and an intermediate below it as some other PKI would make them: (intermediate's key, chain)."""
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(curve())
    start, end = (datetime.datetime.fromtimestamp(NOW_S + offset, datetime.UTC) for offset in (-60, 30 * DAY_S))

    def certificate(name, issuer, public, signer, is_authority, length):
        name, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
        usage = x509.KeyUsage(not sign, False, False, False, False, sign, sign, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(is_authority, length if is_authority else None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        )
        if constraint is not None and name != issuer:
            builder = builder.add_extension(constraint, True)
        return builder.sign(signer, hashes.SHA256())

    root = certificate("company root", "company root", root_key.public_key(), root_key, True, None)
    between = certificate("company mesh", "company root", key.public_key(), root_key, ca, path_length)
    return PrivateKey(key), [between, root]


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_an_intermediate_that_was_handed_in_signs(tmp_path, curve):
    key, chain = foreign(curve=curve)
    authority = Authority(DOMAIN, key, chain, NOW_S)
    _, leaf = leaf_of(authority)
    assert verify(tmp_path, leaf.chain, pem_of([chain[-1]])) == "OK"


@pytest.mark.parametrize(
    "wrong",
    [
        {"ca": False},
        {"sign": False},
        {"constraint": x509.NameConstraints([x509.UniformResourceIdentifier("other.example.org")], None)},
    ],
    ids=["no authority", "may not sign", "of another domain"],
)
def test_a_chain_whose_leaves_would_not_be_trusted_is_refused_when_it_is_handed_in(wrong):
    key, chain = foreign(**wrong)
    with pytest.raises(AuthorityError):
        Authority(DOMAIN, key, chain, NOW_S)


def test_a_key_that_does_not_belong_and_a_chain_without_its_root_are_refused():
    key, chain = foreign()
    for wrong_key, wrong_chain in ((PrivateKey.generate(), chain), (key, chain[:1]), (key, chain[::-1]), (key, [])):
        with pytest.raises(AuthorityError):
            Authority(DOMAIN, wrong_key, wrong_chain, NOW_S)
    for domain in ("", "Mesh", "a/b", "a..b", "x" * 256, "spiffe://a"):
        with pytest.raises(AuthorityError):
            Authority.new_root(domain, NOW_S)


def test_keys_lie_in_files_that_nobody_else_can_read(tmp_path):
    authority = Authority.new_root(DOMAIN, NOW_S).new_intermediate(NOW_S)
    folder = tmp_path / "authority"
    authority_files.save(folder, "mesh", authority)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "mesh.key").stat().st_mode & 0o777 == 0o600
    loaded = authority_files.load(folder, "mesh", DOMAIN, NOW_S)
    assert verify(tmp_path, leaf_of(loaded)[1].chain, pem_of([authority.root])) == "OK"
    assert sorted(path.name for path in folder.iterdir()) == ["mesh.key", "mesh.pem"]
    (folder / "mesh.key").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        authority_files.load(folder, "mesh", DOMAIN, NOW_S)
    (folder / "mesh.key").chmod(0o600)
    folder.chmod(0o777)
    with pytest.raises(KeyFileError, match="chmod 700"):
        authority_files.load(folder, "mesh", DOMAIN, NOW_S)


def test_a_private_key_is_never_shown():
    key = PrivateKey.generate()
    secret = f"{key.signer.private_numbers().private_value:x}"
    authority = Authority.new_root(DOMAIN, NOW_S)
    for text in (repr(key), str(key), f"{key}", repr(authority), repr({"key": key})):
        assert secret[:16] not in text and "BEGIN" not in text and "0x" not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)
    for data in (b"", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", b"secret" * 5000):
        with pytest.raises(KeyFileError) as caught:
            PrivateKey.from_pem(data)
        assert "secret" not in str(caught.value) and "c2Vj" not in str(caught.value)


def test_an_identity_is_read_strictly():
    for text in ("spiffe://a/ns/b/sa/c", "spiffe://cluster.local/ns/kube-system/sa/a.b.c"):
        assert str(SpiffeId.parse(text)) == text
    for text in (
        "",
        "spiffe://a/ns/b/sa/",
        "spiffe://a/ns//sa/c",
        "spiffe://A/ns/b/sa/c",
        "SPIFFE://a/ns/b/sa/c",
        "spiffe://a/ns/b/sa/c/",
        "spiffe://a/ns/b/sa/c/d",
        "spiffe://a/ns/dev/sa/ns/admin/x",
        "spiffe://a:1/ns/b/sa/c",
        "spiffe://u@a/ns/b/sa/c",
        "spiffe://a/ns/b/sa/c?x",
        "spiffe://a/ns/b/sa/c#x",
        "spiffe://a/ns/%62/sa/c",
        "spiffe://a/ns/../sa/c",
        "spiffe://a/ns/b/sa/c\n",
        "spiffe://a/sa/b/ns/c",
        "spiffe://.a/ns/b/sa/c",
        "spiffe://a/ns/B/sa/c",
        "spiffe://a/ns/" + "b" * 64 + "/sa/c",
        "https://a/ns/b/sa/c",
    ):
        with pytest.raises(ValueError, match="expected spiffe://"):
            SpiffeId.parse(text)


def test_identity_of_reads_what_openssl_sees():
    _, leaf = leaf_of(Authority.new_root(DOMAIN, NOW_S))
    assert str(identity_of(leaf.chain[0])) in text_of(leaf.chain[0])


def test_a_handshake_with_a_stranger_fails(tmp_path):
    ours, theirs = Authority.new_root(DOMAIN, NOW_S), Authority.new_root(DOMAIN, NOW_S)
    (key, leaf), (other_key, other) = leaf_of(ours), leaf_of(theirs)
    client = Party(tmp_path / "a", key, leaf.chain, pem_of([ours.root]).decode())
    server = Party(tmp_path / "b", other_key, other.chain, pem_of([ours.root, theirs.root]).decode())
    with pytest.raises(ssl.SSLError):
        handshake(client, server)
