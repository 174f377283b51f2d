"""A self-signed certificate for loopback, and a server with it."""

import ssl
import subprocess
from pathlib import Path

Certificate = tuple[Path, Path]
"""The files of the certificate and of its key."""


def make_certificate(folder: Path, *, name: str = "IP:127.0.0.1") -> Certificate:
    """Create a self-signed certificate and its key; `name` is its only subjectAltName."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=lab",
         "-addext", f"subjectAltName={name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def serving(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
