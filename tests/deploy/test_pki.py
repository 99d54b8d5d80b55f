"""Certificates hold for the names they were made for and no other; keys are what Flower and ssh-keygen take."""

import datetime as dt
import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from fedimb.deploy import pki
from fedimb.deploy.coordinator.deployment import DeployConfig
from fedimb.deploy.home import CoordinatorAddress
from fedimb.errors import ConfigError


@pytest.fixture(scope="module")
def ca() -> pki.Pair:
    return pki.make_ca("heart")


def _verify(ca_pem: bytes, cert_pem: bytes, subject: x509.GeneralName) -> None:
    """Path validation by the library: raises VerificationError."""
    store = Store([x509.load_pem_x509_certificate(ca_pem)])
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    PolicyBuilder().store(store).build_server_verifier(subject).verify(x509.load_pem_x509_certificate(cert_pem), [])


@pytest.mark.parametrize(
    ("host", "subject"),
    [
        ("fl.example.org", x509.DNSName("fl.example.org")),
        ("FL.Example.org", x509.DNSName("fl.example.org")),
        ("klinik-süd.example", x509.DNSName("klinik-süd.example".encode("idna").decode())),
        ("10.1.2.3", x509.IPAddress(pki.ipaddress.ip_address("10.1.2.3"))),
        ("[::1]", x509.IPAddress(pki.ipaddress.ip_address("::1"))),
    ],
)
def test_a_server_is_verified_under_its_name_by_its_authority_only(
    ca: pki.Pair, host: str, subject: x509.GeneralName
) -> None:
    _, cert = pki.server_certificate(ca, [host])
    _verify(ca[1], cert, subject)
    with pytest.raises(VerificationError):
        _verify(ca[1], cert, x509.DNSName("other.example.org"))
    with pytest.raises(VerificationError):
        _verify(pki.make_ca("heart")[1], cert, subject)  # the same name, another key
    assert pki.covers(cert, host)
    assert not pki.covers(cert, "other.example.org")
    assert pki.signed_by(cert, ca[1])
    assert not pki.signed_by(cert, pki.make_ca("heart")[1])


def test_an_authority_makes_no_further_authorities(ca: pki.Pair) -> None:
    extensions = x509.load_pem_x509_certificate(ca[1]).extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    server = x509.load_pem_x509_certificate(pki.server_certificate(ca, ["a.example"])[1])
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_python_loads_the_server_pair(ca: pki.Pair, tmp_path: Path) -> None:
    key, cert = pki.server_certificate(ca, ["localhost"])
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "cert").write_bytes(cert)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tmp_path / "cert", tmp_path / "key")


@pytest.mark.parametrize("host", ["", "zwei worte", "a..b\u200b"])
def test_what_is_no_host_is_refused(ca: pki.Pair, host: str) -> None:
    with pytest.raises(ConfigError, match=r"not a host name|IP address"):
        pki.server_certificate(ca, [host])


@pytest.mark.parametrize("host", ["https://a.example", "a.example:443", "a.example/x", "a b"])
def test_an_address_with_more_than_a_host_is_refused_in_both_folders(host: str) -> None:
    """A node with it was made, and found out when it first called."""
    for make in (
        lambda name: CoordinatorAddress(host=name, port=443, ca_fingerprint="0" * 64),
        lambda name: DeployConfig(name="heart", host=name),
    ):
        with pytest.raises(ValueError, match="without https:// and port"):
            make(host)
        assert make("größe.example").host == "größe.example"


def test_a_private_key_sent_as_the_authority_is_named(ca: pki.Pair) -> None:
    with pytest.raises(ConfigError, match=r"ca\.pem contains a PRIVATE key"):
        pki.check_ca(ca[0], "0" * 64, "ca.pem")
    with pytest.raises(ConfigError, match=r"heart\.csv does not contain a certificate"):
        pki.check_ca(b"hello", "0" * 64, "heart.csv")


def test_a_key_of_another_authority_is_refused(ca: pki.Pair) -> None:
    with pytest.raises(ConfigError, match=r"ca\.key is not the key"):
        pki.server_certificate((pki.make_ca("x")[0], ca[1]), ["a.example"])
    with pytest.raises(ConfigError, match="--host"):
        pki.server_certificate(ca, [])


def test_the_fingerprint_is_sha256_of_the_der(ca: pki.Pair) -> None:
    der = ssl.PEM_cert_to_DER_cert(ca[1].decode())
    assert pki.fingerprint(ca[1]) == hashlib.sha256(der).hexdigest()
    with pytest.raises(ConfigError, match="does not contain a certificate"):
        pki.fingerprint(b"hello")


@given(st.binary(min_size=32, max_size=32), st.sampled_from([" ", ":", ""]), st.booleans())
def test_a_fingerprint_is_read_however_it_is_written(raw: bytes, between: str, capitals: bool) -> None:
    written = between.join(raw.hex()[i : i + 2] for i in range(0, 64, 2))
    assert pki.parse_fingerprint(written.upper() if capitals else written) == raw.hex()
    assert pki.parse_fingerprint(pki.format_fingerprint(raw.hex())) == raw.hex()


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 65])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="64 hex digits"):
        pki.parse_fingerprint(text)


def test_an_authority_is_accepted_by_its_fingerprint_alone(ca: pki.Pair) -> None:
    pki.check_ca(ca[1], pki.format_fingerprint(pki.fingerprint(ca[1])).upper(), "ca.crt")
    with pytest.raises(ConfigError, match="another fingerprint"):
        pki.check_ca(ca[1], pki.fingerprint(pki.make_ca("heart")[1]), "ca.crt")
    with pytest.raises(ConfigError, match="another fingerprint"):
        pki.check_ca(b"", pki.fingerprint(ca[1]), "ca.crt")
    _, server = pki.server_certificate(ca, ["a.example"])
    with pytest.raises(ConfigError, match="not a certificate authority"):
        pki.check_ca(server, pki.fingerprint(server), "server.pem")
    _, old = pki.make_ca("heart", days=0)
    with pytest.raises(ConfigError, match="expired"):
        pki.check_ca(old, pki.fingerprint(old), "ca.crt")


@pytest.mark.parametrize(
    ("days_before", "says"), [(31, None), (29.5, "expires in 29 days"), (0.5, "in 0 days"), (-1, "expired")]
)
def test_an_end_is_announced_thirty_days_before(
    ca: pki.Pair, tmp_path: Path, days_before: float, says: str | None
) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes(pki.server_certificate(ca, ["a.example"], days=100)[1])
    end = pki.expires(path.read_bytes())
    assert abs(end - dt.datetime.now(dt.UTC) - dt.timedelta(days=100)) < dt.timedelta(minutes=5)
    line = pki.expiry_warning(path, "do this", now=end - dt.timedelta(days=days_before))
    assert (line is None) if says is None else (line is not None and says in line and line.endswith("do this"))


def test_a_site_key_is_one_that_flower_takes(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    private, public = pki.make_site_key()
    key = load_ssh_private_key(private, None)  # as flower-supernode loads it
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    (tmp_path / "key.pub").write_bytes(public)
    assert try_load_public_key(tmp_path / "key.pub") == public_key_to_bytes(key.public_key())
    assert pki.make_site_key()[0] != private


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_the_key_fingerprint_is_the_one_ssh_keygen_prints(tmp_path: Path) -> None:
    _, public = pki.make_site_key()
    (tmp_path / "key.pub").write_bytes(public)
    said = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert pki.key_fingerprint(public, "key.pub") == said.split()[1]


def test_a_private_or_foreign_key_is_refused() -> None:
    private, _ = pki.make_site_key()
    with pytest.raises(ConfigError, match="PRIVATE key, which must never leave"):
        pki.key_fingerprint(private, "x.join.json")
    ed25519 = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1nkfN0oGVFyNgJWVqUt3LrHnkR1BzKDPQZsDnvGmdo"
    p256 = pki.public_line(ec.generate_private_key(ec.SECP256R1()))
    for other in (b"", b"hello there", ed25519, p256):
        with pytest.raises(ConfigError, match="does not contain a public key"):
            pki.key_fingerprint(other, "x.join.json")
