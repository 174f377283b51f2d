"""The lease's times are held against each other at the start, in words that name the variables."""

import pytest

from reconciler.errors import SettingsError
from reconciler.settings import Settings, load_settings

LEASE = "RECONCILER_LEASE_DURATION_S"
DEADLINE = "RECONCILER_RENEW_DEADLINE_S"
RETRY = "RECONCILER_RETRY_PERIOD_S"
LIMIT = "RECONCILER_REQUEST_LIMIT_S"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AMBIENT_API_TOKEN", "obviously-fake-static-token")
    return monkeypatch


def loaded(patch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        patch.setenv(name, value)
    return load_settings()


def test_the_defaults_are_client_gos(load: pytest.MonkeyPatch) -> None:
    settings = loaded(load)
    times = settings.lease_duration_s, settings.renew_deadline_s, settings.retry_period_s
    assert times == (15, 10.0, 2.0)
    assert settings.leader_elect
    assert settings.lease_name == "token-reconciler"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({DEADLINE: "15"}, [LEASE, DEADLINE, RETRY]),
        ({LEASE: "9", LIMIT: "1"}, [LEASE, DEADLINE, RETRY]),
        ({RETRY: "8.4"}, [LEASE, DEADLINE, RETRY]),
        ({LIMIT: "11.1"}, [LIMIT, LEASE, RETRY]),
        ({LEASE: "5", DEADLINE: "3", RETRY: "0.5"}, [LIMIT, LEASE, RETRY]),
        ({LEASE: "0"}, [LEASE]),
        ({LEASE: "301"}, [LEASE]),
        ({LEASE: "15.5"}, [LEASE]),
        ({DEADLINE: "0"}, [DEADLINE]),
        ({DEADLINE: "soon"}, [DEADLINE]),
        ({RETRY: "-1"}, [RETRY]),
        ({"RECONCILER_LEASE_NAME": "Not/A/Name"}, ["RECONCILER_LEASE_NAME"]),
        ({"RECONCILER_POD_UID": "a_b"}, ["RECONCILER_POD_UID"]),
        ({"RECONCILER_LEADER_ELECT": "perhaps"}, ["RECONCILER_LEADER_ELECT"]),
    ],
)
def test_what_does_not_fit_is_one_message_that_names_the_variables(
    load: pytest.MonkeyPatch, environment: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(SettingsError) as failure:
        loaded(load, **environment)
    [line] = str(failure.value).splitlines()
    assert [name for name in named if name not in line] == []
    assert "obviously-fake" not in line


@pytest.mark.parametrize(
    "environment",
    [
        {DEADLINE: "14.9", RETRY: "2"},
        {LEASE: "30", RETRY: "8.25", LIMIT: "13.5"},
        {LIMIT: "11"},
        {LEASE: "5", DEADLINE: "3", RETRY: "0.5", LIMIT: "4"},
        {"RECONCILER_LEADER_ELECT": "false", LEASE: "5", LIMIT: "60"},
    ],
    ids=["deadline", "retry", "limit", "short", "alone"],
)
def test_what_just_fits_is_taken(load: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    settings = loaded(load, **environment)
    assert settings.leader_elect is ("RECONCILER_LEADER_ELECT" not in environment)
