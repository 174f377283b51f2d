"""Where a release's files come from: an unsigned in-toto statement with a SLSA v1 predicate."""

import json
from collections.abc import Mapping


def provenance(
    digests: Mapping[str, str], made_from: Mapping[str, Mapping[str, str]], *, version: str,
    architecture: str, url: str,
) -> str:  # fmt: skip
    """Return the statement as JSON.

    Args:
        digests: Name -> SHA-256 (hex) of each file, and of the image's manifest.
        made_from: Name -> algorithm -> digest of each input.
        url: Where releases are published; the build's type and builder are named below it.
    Source: in-toto Statement v1, SLSA provenance v1.
    """
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{url}/make-release/v1",
                "externalParameters": {"version": version, "url": url},
                "internalParameters": {"architecture": architecture},
                "resolvedDependencies": [
                    {"name": name, "digest": dict(digest)} for name, digest in made_from.items()
                ],
            },
            "runDetails": {"builder": {"id": f"{url}/builders/local"}},
        },
    }
    return json.dumps(statement, indent=2) + "\n"
