"""The files that a control plane needs before it starts: keys, a certificate, users, tokens."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.secrecy.outputs import OUTPUTS

ADMIN = "admin"

USERS = ("reconciler", "rival", "platform", "tenant", "nobody")
"""Users without any permission until a test grants one."""

OPENSSL_LIMIT_S = 30.0


class Credentials:
    """Files in `folder`, created for each control plane.

    `serving.crt` is self-signed: it is the server's certificate and the CA file that verifies it.
    Only our server has its key. Service-account tokens have a separate key pair.

    Args:
        addresses: IP addresses in the certificate in addition to loopback.
    """

    def __init__(self, folder: Path, addresses: Iterable[str] = ()) -> None:
        self._names = ",".join(("IP:127.0.0.1", "DNS:localhost", *(f"IP:{a}" for a in addresses)))
        self.serving_cert = folder / "serving.crt"
        self.serving_key = folder / "serving.key"
        self.account_key = folder / "service-account.key"
        self.account_public_key = folder / "service-account.pub"
        self.token_file = folder / "tokens.csv"
        self.tokens: Mapping[str, str] = {
            user: secrets.token_urlsafe(24) for user in (ADMIN, *USERS)
        }
        for user, token in self.tokens.items():
            OUTPUTS.add_secret(token, f"the credential of {user}", lasting=True)
        self._make_certificate()
        self._make_account_key()
        self._write_tokens()

    def _make_certificate(self) -> None:
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "30", "-subj", "/CN=test-control-plane",
            "-addext", f"subjectAltName={self._names}",
            "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
            "-keyout", str(self.serving_key), "-out", str(self.serving_cert),
        )  # fmt: skip

    def _make_account_key(self) -> None:
        _openssl(
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-out", str(self.account_key),
        )  # fmt: skip
        _openssl(
            "pkey", "-in", str(self.account_key), "-pubout", "-out", str(self.account_public_key)
        )

    def _write_tokens(self) -> None:
        """Source: the API server's static token file: token, user, uid, "groups"."""
        lines = [f'{self.tokens[ADMIN]},{ADMIN},{ADMIN},"system:masters"']
        lines += [f"{self.tokens[user]},{user},{user}" for user in USERS]
        self.token_file.write_text("\n".join(lines) + "\n")
        self.token_file.chmod(0o600)


def kubeconfig(*, url: str, ca_file: Path, user: str, token: str) -> str:
    """Return a kubeconfig with one context (JSON, which is YAML)."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "clusters": [
                {"name": "test", "cluster": {"server": url, "certificate-authority": str(ca_file)}}
            ],
            "users": [{"name": user, "user": {"token": token}}],
        },
        indent=2,
    )


def _openssl(*arguments: str) -> None:
    """Run openssl; raises `RuntimeError` with its message if it is absent or fails."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("the control plane's certificate needs the openssl program: install it")
    done = subprocess.run(
        [openssl, *arguments], capture_output=True, text=True, timeout=OPENSSL_LIMIT_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
