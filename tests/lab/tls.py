"""A certificate of one's own for loopback, and a server that shows it."""

import ssl
import subprocess
from pathlib import Path

Certificate = tuple[Path, Path]
"""The certificate's file and its key's."""


def make_certificate(folder: Path, *, name: str = "IP:127.0.0.1") -> Certificate:
    """Make a self-signed certificate and its key; `name` is its one subjectAltName."""
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
