"""Certificates and keys: a coordinator's certificate authority, its server certificate, a site's identity.

There is one authority per deployment; sites trust it for nothing but the coordinator's address. It signs server
certificates only: a site is known by its key, which is generated at the site and never signed. All keys are on curve
P-384, because Flower requires a node's key to be on a NIST curve. The extensions follow RFC 5280.
"""

import base64
import datetime as dt
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

import idna
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedimb.errors import ConfigError

CA_DAYS = 3650
SERVER_DAYS = 397
EXPIRES_SOON_DAYS = 30
_SKEW = dt.timedelta(days=1)  # a site's clock may be behind
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123

Pair = tuple[bytes, bytes]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _usage(*granted: str) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
    return x509.KeyUsage(**{n: n in granted for n in (*names.split(), "crl_sign", "encipher_only", "decipher_only")})


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # RFC 5280: at most 64


def _builder(name: x509.Name, days: int) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name).serial_number(x509.random_serial_number())
    return builder.not_valid_before(_now() - _SKEW).not_valid_after(_now() + dt.timedelta(days=days))


def make_ca(name: str, days: int = CA_DAYS) -> Pair:
    """Make a new certificate authority.

    Args:
        name: the deployment's name, shown in the certificate.
        days: how long it is valid.

    Returns:
        (private key, certificate), both PEM. Anyone who has the key can pose as the coordinator to every site.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _named(f"{name} fedimb CA")
    certificate = (
        _builder(subject, days)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def server_certificate(ca: Pair, hosts: Iterable[str], days: int = SERVER_DAYS) -> Pair:
    """Make a server's key and certificate, signed by ``ca``.

    Args:
        ca: (key, certificate) of `make_ca`.
        hosts: all names and IP addresses the server is reached by; names may be international.
        days: how long it is valid.

    Returns:
        (private key, certificate), both PEM.

    Raises:
        ConfigError: a host name is not valid, none is given, or the authority's key and certificate do not match.
    """
    ca_key = serialization.load_pem_private_key(ca[0], None)
    ca_cert = load_certificate(ca[1], "the authority's certificate")
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca_cert.public_key():
        raise ConfigError("ca.key is not the key of ca.crt: restore both files as fedimb deploy init made them")
    names = [_general_name(host) for host in dict.fromkeys(hosts)]
    if not names:
        raise ConfigError("a server certificate needs a host name or address: give --host")
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _builder(_named(str(names[0].value)), days)
        .issuer_name(ca_cert.subject)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    return _pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def check_host(host: str) -> str:
    """Return a host name or IP address; ValueError if it is neither, such as ``https://...`` or ``name:443``."""
    try:
        _general_name(host)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return host


def _general_name(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        name = host.lower() if host.isascii() else idna.encode(host.lower()).decode("ascii")
    except idna.IDNAError:
        name = ""
    if len(name) > 253 or not all(re.fullmatch(_LABEL, label) for label in name.split(".")):
        raise ConfigError(
            f"'{host}' is not a host name or IP address: write it as in fl.example.org, without https:// and port"
        )
    return x509.DNSName(name)


def load_certificate(pem: bytes, place: str) -> x509.Certificate:
    """Load the first certificate in ``pem``. Raises ConfigError that names ``place`` if there is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError(f"{place} does not contain a certificate (PEM: -----BEGIN CERTIFICATE-----)") from None


def fingerprint(cert_pem: bytes, place: str = "the file") -> str:
    """SHA-256 of the certificate (DER), 64 hex digits: what is read out by telephone to confirm it."""
    return load_certificate(cert_pem, place).fingerprint(hashes.SHA256()).hex()


def format_fingerprint(digest: str) -> str:
    """Format 64 hex digits in groups of four, for reading aloud and comparing."""
    return " ".join(digest[i : i + 4] for i in range(0, len(digest), 4))


def parse_fingerprint(text: str) -> str:
    """Parse a fingerprint (spaces, colons and capitals allowed) into 64 hex digits.

    Raises ConfigError if it is not one.
    """
    digest = "".join(text.replace(":", " ").split()).lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ConfigError(
            f"'{text}' is not a SHA-256 fingerprint: give 64 hex digits, with or without spaces and colons"
        )
    return digest


def check_ca(cert_pem: bytes, expected: str, place: str) -> None:
    """Refuse an authority whose fingerprint is not the one that was confirmed.

    Raises:
        ConfigError: the fingerprint differs, the certificate has expired, or it may not sign.
    """
    if b"PRIVATE KEY" in cert_pem:
        raise ConfigError(
            f"{place} contains a PRIVATE key, which must never leave the coordinator: delete this copy, tell them by "
            "telephone, and ask for ca.crt"
        )
    found = fingerprint(cert_pem, place) if cert_pem.strip() else ""
    if found != parse_fingerprint(expected):
        raise ConfigError(
            f"{place} has another fingerprint than you were told:\n  file: {format_fingerprint(found)}\n  told: "
            f"{format_fingerprint(parse_fingerprint(expected))}\n"
            "Do not go on: ask the coordinator, by telephone, which is theirs"
        )
    certificate = load_certificate(cert_pem, place)
    try:
        signs = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        signs = False
    if not signs:
        raise ConfigError(f"{place} is not a certificate authority: ask the coordinator for ca.crt, not server.pem")
    if certificate.not_valid_after_utc < _now():
        raise ConfigError(f"{place} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: ask for the new ca.crt")


def signed_by(cert_pem: bytes, ca_pem: bytes) -> bool:
    """Whether the authority ``ca_pem`` signed the certificate."""
    try:
        load_certificate(cert_pem, "the certificate").verify_directly_issued_by(load_certificate(ca_pem, "ca.crt"))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def covers(cert_pem: bytes, host: str) -> bool:
    """Whether the certificate was made for this name or address."""
    extensions = load_certificate(cert_pem, "the certificate").extensions
    return _general_name(host) in extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def expires(cert_pem: bytes) -> dt.datetime:
    """When the certificate expires, in UTC."""
    return load_certificate(cert_pem, "the file").not_valid_after_utc


def expiry_warning(path: Path, remedy: str, now: dt.datetime | None = None) -> str | None:
    """A warning about a certificate that has expired or expires within 30 days; None if it does not.

    Args:
        path: the certificate's file.
        remedy: what to do; appended to the warning.
        now: the time to compare with (default: the current time).
    """
    end = expires(path.read_bytes())
    days = (end - (now or _now())) / dt.timedelta(days=1)
    if days > EXPIRES_SOON_DAYS:
        return None
    when = f"expires in {int(days)} days, on" if days > 0 else "expired on"
    return f"{path.name} {when} {end:%Y-%m-%dT%H:%MZ}: {remedy}"


def make_site_key() -> Pair:
    """Make a site's key pair: (private key in OpenSSH format, public key as one ``ecdsa-sha2-nistp384`` line)."""
    key = ec.generate_private_key(ec.SECP384R1())
    ssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, ssh, plain), public_line(key)


def public_line(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key in OpenSSH format, one line without a comment."""
    openssh = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, openssh) + b"\n"


def key_fingerprint(public: bytes, place: str) -> str:
    """The fingerprint ``SHA256:...`` of a site's public key, as ``ssh-keygen -lf`` prints it.

    Raises:
        ConfigError: it is not a public key on NIST curve P-384, or it is a private key.
    """
    if b"PRIVATE KEY" in public:
        raise ConfigError(
            f"{place} contains a PRIVATE key, which must never leave its site: delete this copy; at the site, "
            "run fedimb node rotate and send the new join file"
        )
    try:
        key = serialization.load_ssh_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{place} does not contain a public key as fedimb node init makes it (ecdsa-sha2-nistp384)")
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")
