"""`make plan` in, a page and the same numbers as JSON out."""

import json

import pytest

from glmasr.planning.table import plan
from glmasr.speech import InputError
from tests.small import SMALL, composed


def test_the_page_and_the_json_say_the_same(tmp_path, capsys):
    file = tmp_path / "plan.json"
    plan(composed("plan", *SMALL, f"json={file}", "price_per_gpu_hour=2", "update_seconds=960", "updates=5000"))
    page, written = capsys.readouterr().out, json.loads(file.read_text())
    row = next(row for row in written["rows"] if row["strategy"] == written["chosen"])
    assert f"{row['days']:,.2f} days, {written['gpu_hours']:,.0f} GPU hours; cost {written['cost']:,.0f}" in page
    assert f"{row['memory']['total']:14,.2f}" in page and "5,000" in page
    assert row["memory"]["total"] == pytest.approx(sum(v for k, v in row["memory"].items() if k != "total"))
    assert [line for line in page.splitlines() if line.startswith("!")] == [f"! {one}" for one in written["warnings"]]


def test_a_calibrated_plan_shows_its_trials(capsys):
    calibration = ["calibration.widths=[1.0]", "calibration.shapes=[[1,25],[2,50],[4,50]]", "calibration.rounds=1"]
    plan(composed("plan", *SMALL, "gpu=cpu", "gpus=1", "batch_seconds=12", "calibrate=true", *calibration))
    page = capsys.readouterr().out
    assert "measured here" in page and page.count("GB moved") == 3


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="choose another json=FILE"):
        plan(composed("plan", *SMALL, f"json={tmp_path}"))
