"""What is computed from measurements: targets, losses, unit costs, capacity, the picture."""

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.__main__ import HERE, RECORDED, Figure, lost, measured
from benchmarks.capacity import PROCESSES, Hardware, Load, limits, need
from benchmarks.plot import Bar, draw
from benchmarks.units import split


@pytest.mark.parametrize(
    ("terms", "value", "is_met", "loss"),
    [
        ({"at_least": 2.0}, 3.0, True, 0.25),
        ({"at_least": 2.0}, 1.0, False, 0.75),
        ({"at_most": 5.0}, 2.0, True, 0.0),
        ({"at_most": 5.0}, 8.0, False, 0.5),
        ({"at_most": 5.0}, None, False, 0.0),
    ],
)
def test_figure_against_target_and_record(
    terms: dict[str, float], value: float | None, is_met: bool, loss: float
) -> None:
    figure = Figure("suite", "name", value, terms, recorded=4.0)
    assert figure.is_met is is_met
    assert figure.loss == pytest.approx(loss)


def test_only_marked_figures_that_lost_a_third_are_complained_of() -> None:
    figures = [
        Figure("a", "worse", 2.0, {"at_least": 1.0, "check": True}, recorded=4.0),
        Figure("a", "a little worse", 3.0, {"at_least": 1.0, "check": True}, recorded=4.0),
        Figure("a", "worse, unmarked", 2.0, {"at_least": 1.0}, recorded=4.0),
    ]
    [complaint] = lost(figures)
    assert complaint.startswith("a, worse: 2 is 50%")


def test_benchmark_that_fails_does_not_keep_others_from_running() -> None:
    suites: dict[str, dict[str, list[str]]] = {
        "no_such_benchmark": {"arguments": []},
        "nor_this": {"quick": []},
    }
    assert list(measured(suites, quick=False)) == [("no_such_benchmark", {})]


def test_every_target_names_a_benchmark_and_one_bound() -> None:
    for suite, terms in tomllib.loads((HERE / "targets.toml").read_text()).items():
        assert (HERE / f"{suite}.py").exists()
        for name, of_figure in terms["figures"].items():
            assert len({"at_least", "at_most"} & set(of_figure)) == 1, name


def test_costs_of_objects_and_studies_are_told_apart() -> None:
    per_object, per_study = {"scp": 0.8}, {"scp": 4.0}
    large = {"scp": 1000 * 0.8 + 20 * 4.0}
    many = {"scp": 200 * 0.8 + 200 * 4.0}
    found = split(large, many, (1000, 200), (20, 200))
    assert found[0]["scp"] == pytest.approx(per_object["scp"])
    assert found[1]["scp"] == pytest.approx(per_study["scp"])


def test_need_follows_from_recorded_costs() -> None:
    units = json.loads(RECORDED.read_text())["units"]
    one = need(Load(100_000, 10, 39, 50, 1, notified=True), units)
    ten = need(Load(1_000_000, 100, 39, 50, 1, notified=True), units)
    for name in PROCESSES:
        assert ten.cores[name] == pytest.approx(10 * one.cores[name])
    expected = units["object received: scp"] + units["study received: scp"] / 50
    expected += units["object sent: scp"] + units["export task: scp"] / 50
    expected += units["notification: scp"] / 50
    assert one.cores["scp"] == pytest.approx(expected * 10 / 1000)
    assert one.stored_gb == pytest.approx(3.9)
    assert one.network_mb == pytest.approx(0.39)
    full = limits(one, Hardware(cores=4, flushes=1000, network_mb=110))
    assert full["flushes of its disk by files"] == pytest.approx(100)


def test_same_figures_give_the_same_picture(tmp_path: Path) -> None:
    bars = [Bar("one", "met", 2.0, "4, ≥ 2"), Bar("two", "missed", 0.01, "300 ms, ≤ 3 ms")]
    for name in ("a.svg", "b.svg"):
        draw(bars, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "300 ms, ≤ 3 ms" in drawn
