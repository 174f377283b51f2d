"""The namespace rule, case by case."""

import pytest

from reconciler.platform.models import Mode, PlatformSession, namespace_of


@pytest.mark.parametrize(
    ("mode", "project", "recorded", "namespace"),
    [
        pytest.param("standard", "alpha", "", "alpha", id="project"),
        pytest.param("standard", "Alpha", "", "alpha", id="lower-cased"),
        pytest.param("mpp", "Alpha", "", "ambient-code--alpha", id="tenant-prefix"),
        pytest.param("standard", "alpha", "elsewhere", "alpha", id="project-wins"),
        pytest.param("mpp", "alpha", "elsewhere", "ambient-code--alpha", id="project-wins-in-mpp"),
        pytest.param("standard", "", "Recorded", "Recorded", id="recorded-as-it-is"),
        pytest.param("mpp", "", "recorded", "recorded", id="recorded-without-prefix"),
        pytest.param("standard", "", "", "default", id="neither"),
        pytest.param("mpp", "", "", "default", id="neither-in-mpp"),
    ],
)
def test_namespace_follows_the_control_planes_rule(
    mode: Mode, project: str, recorded: str, namespace: str
) -> None:
    session = PlatformSession(id="s", project_id=project, kube_namespace=recorded)
    assert namespace_of(session, mode) == namespace
