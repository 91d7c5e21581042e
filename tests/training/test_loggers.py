"""A logger that fails is let go with one warning, whatever it is asked afterwards."""

import warnings
from types import SimpleNamespace

import pytest
from pytorch_lightning.loggers.logger import Logger

from glmasr.training.loggers import Forgiving, is_logged


class Fragile(Logger):
    """Logs twice, then has lost its server."""

    name, version, save_dir = "fragile", 3, "/tmp"

    def __init__(self):
        super().__init__()
        self.rows, self.ended = [], None

    def log_hyperparams(self, *args, **kwargs):
        raise AssertionError("nobody asked")

    def log_metrics(self, metrics, step=None):
        if len(self.rows) == 2:
            raise OSError(28, "No space left on device")
        self.rows.append((step, metrics))

    def finalize(self, status):
        self.ended = status


def test_a_lost_logger_is_warned_of_once():
    inner = Fragile()
    logger = Forgiving(inner)
    assert (logger.name, logger.version, logger.save_dir) == ("fragile", 3, "/tmp")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(5):
            logger.log_metrics({"loss": 1.0}, step)
            logger.save()
        logger.finalize("success")
    assert [step for step, _ in inner.rows] == [0, 1] and inner.ended is None and logger.name is None
    assert len(said) == 1 and "Fragile is lost ([Errno 28] No space left on device): training goes on" in str(
        said[0].message
    )


def test_a_sound_logger_gets_everything():
    inner = Fragile()
    logger = Forgiving(inner)
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"loss": 2.0}, step=4)
    logger.finalize("success")
    assert inner.rows == [(4, {"loss": 2.0})] and inner.ended == "success"


def test_the_interpreter_may_still_be_interrupted():
    inner = Fragile()
    inner.log_metrics = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        Forgiving(inner).log_metrics({}, 0)


def test_a_row_is_logged_every_so_many_steps_and_never_at_zero():
    every = [step for step in range(1, 10) if is_logged(SimpleNamespace(log_every_n_steps=3), step)]
    assert every == [3, 6, 9] and not is_logged(SimpleNamespace(log_every_n_steps=0), 1)
