"""The plots of the last hours: what they say in words, and what they draw."""

import re

import pytest

from reconciler.controller.status.trend import Trend
from reconciler.statuspage.plots import HEIGHT, LEAST_STEPS, Plot, plots
from tests.exhibit import trend_of


def named(found: tuple[Plot, ...]) -> dict[str, str]:
    return {plot.name: plot.note for plot in found}


def test_the_words_say_what_is_drawn() -> None:
    trend = trend_of(
        exposure_s={3: 1.5}, lateness_s={5: 2.0, 6: 0.5}, refreshes={7: 900.0, 8: 300.0},
        failures={8: 2.0}, leader_changes={9: 1.0}, issuer={9: 1.0, 10: 1.0}, kube={20: 1.0},
    )  # fmt: skip

    assert named(plots(trend, leading=True)) == {
        "Exposure": "1.5 s",
        "Lateness": "2.0 s at most",
        "Refreshes": "1,200, 2 failed",
        "Leader changes": "1",
        "Outages": "API server 60s, Issuer 2m",
    }


def test_a_bar_stands_for_equal_minutes_and_the_newest_is_at_the_right() -> None:
    [bars] = plots(trend_of(refreshes={0: 4.0, 1: 4.0, 199: 2.0}), leading=True)[2].bars[:1]

    assert bars == ("good", f"M0 {HEIGHT}v-24h2v24zM199 {HEIGHT}v-12h1v12z")


@pytest.mark.parametrize("value", [0.001, 1.0, 1e9])
def test_a_bar_is_never_invisible_and_never_too_high(value: float) -> None:
    trend = trend_of(exposure_s={1: value, 2: 1e9}, refreshes={1: value}, failures={1: 1e9})
    for plot in plots(trend, leading=True):
        for _, path in plot.bars:
            assert all(1 <= int(found) <= HEIGHT for found in re.findall(r"v-(\d+)", path))


def test_what_is_unknown_is_not_drawn() -> None:
    trend = dict(trend_of(exposure_s={1: 5.0}))
    trend["exposure_s"] = (float("nan"), 5.0, float("nan"))

    [exposure] = [plot for plot in plots(trend, leading=True) if plot.name == "Exposure"]
    assert exposure.note == "5.0 s"
    assert exposure.bars == (("bad", f"M{LEAST_STEPS - 2} {HEIGHT}v-24h1v24z"),)


def test_a_standby_has_no_plot_of_what_it_never_did() -> None:
    assert named(plots(Trend().read(), leading=False)) == {
        "Exposure": "0.0 s", "Leader changes": "0", "Outages": "none",
    }  # fmt: skip
    assert "Refreshes" in named(plots(trend_of(refreshes={1: 1.0}), leading=False))
