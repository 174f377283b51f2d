"""`python -m tests.release.sbom`: the bill of materials (CycloneDX 1.6) of the image's packages.

The packages are read from an environment that uv installs from the lock as the Dockerfile does, so
that names, versions and licences are those of each package's own metadata. No file is named by an
address. The base of the image is the site's choice, and is not in the bill.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.image.build import ROOT, committed_at_s

PRODUCT = "runner-token-reconciler"
FILE = Path("build/sbom.cdx.json")
INSTALL_LIMIT_S = 300.0


class SbomError(Exception):
    """The bill of materials would be incomplete or invalid; the message says why."""


def packages(folder: Path) -> list[Distribution]:
    """Return what the lock installs without the development tools, installed into `folder`."""
    subprocess.run(
        [ROOT / ".venv/bin/uv", "sync", "--quiet", "--frozen", "--no-dev", "--no-editable"],
        cwd=ROOT, env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder)}, check=True,
        timeout=INSTALL_LIMIT_S,
    )  # fmt: skip
    return installed(folder)


def installed(environment: Path) -> list[Distribution]:
    """Return the packages of a virtual environment."""
    [site] = environment.glob("lib/python3*/site-packages")
    return list(distributions(path=[str(site)]))


def bill(found: Iterable[Distribution]) -> str:
    """Return the bill of these packages as JSON; the same for the same packages and commit.

    Raises:
        SbomError: A package declares no licence, or the schema refuses the bill.
    """
    made_at_utc = datetime.fromtimestamp(committed_at_s(), UTC)
    distributions_by_name = {canonicalize_name(one.name): one for one in found}
    parts = {name: _component(name, one) for name, one in distributions_by_name.items()}
    product = parts[NormalizedName(PRODUCT)]
    product.type = ComponentType.APPLICATION
    bom = Bom(
        components=[part for part in parts.values() if part is not product],
        metadata=BomMetaData(component=product, timestamp=made_at_utc),
        serial_number=uuid5(NAMESPACE_URL, f"{product.purl}?made={made_at_utc.isoformat()}"),
    )
    for name, one in distributions_by_name.items():
        bom.register_dependency(parts[name], [parts[needed] for needed in _needs(one)])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if refusal := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SbomError(f"the bill is no CycloneDX 1.6: {refusal}")
    return text + "\n"


def _component(name: str, one: Distribution) -> Component:
    return Component(
        name=one.name,
        version=one.version,
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=one.version),
        licenses=[LicenseFactory().make_from_string(_licence(one))],
    )


def _licence(one: Distribution) -> str:
    """Return the declared licence: an SPDX expression where the metadata has one.

    Source: the core metadata specification; `License` and classifiers are its former fields.
    """
    classifiers = one.metadata.get_all("Classifier") or []
    for text in (
        *(one.metadata.get_all("License-Expression") or []),
        *(one.metadata.get_all("License") or []),
        *(text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::")),
    ):
        if text:
            return str(text)
    raise SbomError(f"{one.name} {one.version} declares no licence")


def _needs(one: Distribution) -> Iterator[NormalizedName]:
    """Yield the names of what a package requires here, without its extras."""
    for line in one.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(bill(packages(ROOT / "build/packages")))


if __name__ == "__main__":
    main()
