"""Certificates for the tests' servers, signed by an authority of the tests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """The files of an authority, and of a server's certificate that it signed."""

    ca: Path
    certificate: Path
    """For 127.0.0.1."""
    key: Path


def make_authority(folder: Path, name: str) -> Authority:
    """Make an authority and a server's certificate, valid from yesterday for a month."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, "127.0.0.1")
    )
    yesterday = datetime.now(UTC) - timedelta(days=1)

    def sign(of: x509.Name, public: ec.EllipticCurvePublicKey, *, is_ca: bool) -> bytes:
        built = (
            x509.CertificateBuilder()
            .subject_name(of)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(yesterday)
            .not_valid_after(yesterday + timedelta(days=31))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            built = built.add_extension(names, critical=False)
        return built.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority = Authority(*(folder / f"{name}-{part}.pem" for part in ("ca", "certificate", "key")))
    authority.ca.write_bytes(sign(issuer, ca_key.public_key(), is_ca=True))
    authority.certificate.write_bytes(sign(subject, key.public_key(), is_ca=False))
    authority.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return authority
