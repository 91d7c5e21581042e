"""The page that a pretraining leaves: its verdict and its curves, or one line where nothing can be drawn."""

import sys

import pytest

from glmasr.training import health_report, run
from tests.small import composed, small


def test_the_report_shows_the_curves_and_the_verdict(corpus, tmp_path):
    pytest.importorskip("matplotlib")
    pace = ["trainer.max_steps=8", "trainer.val_check_interval=8", "probe.every_steps=null", "name=r"]
    guard = ["health.every_steps=2", "health.grace_steps=4", "health.patience=2"]
    run.pretrain(composed("pretrain", *small(corpus, tmp_path, "objective=contrastive", *pace, *guard)))
    folder = tmp_path / "runs" / "r"
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 8 and "no rule was broken" in page and "Effective rank" in page
    curves = health_report.read_curves(folder / "metrics.csv")
    assert list(curves["train/loss"].x) == list(range(8))
    (folder / "long.csv").write_text("step,probe/cer\n" + "\n".join(f"{n},{n * 2}" for n in range(1000)))
    thin = health_report.read_curves(folder / "long.csv")["probe/cer"]
    assert len(thin.x) == health_report.POINTS and thin.y[0] == 9.0


def test_without_matplotlib_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "glmasr.figures", None)
    assert not health_report.write_health_report(tmp_path)
    assert "matplotlib" in capsys.readouterr().err and not list(tmp_path.iterdir())
