"""A logger that may fail in, one that never ends a run out."""

import warnings
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.loggers.logger import Logger


def is_logged(trainer: lightning.Trainer, step: int) -> bool:
    """Whether loggers get a row at this step, the first being 1: at others nothing has to be handed to Lightning.

    Its bookkeeping of twenty values takes as long as a fortieth of a small model's step.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and step % every == 0


class Forgiving(Logger):
    """Passes everything on until `inner` raises, warns once, and is silent from then on.

    For what is nice to have: TensorBoard on a full disk, an account that went away. metrics.csv is not wrapped.
    """

    def __init__(self, inner: Logger):
        super().__init__()
        self.inner = inner
        self.lost = False

    def attempt(self, name: str, *args, **kwargs) -> Any:
        """The result of a method of the inner logger, or None once it is lost."""
        if self.lost:
            return None
        try:
            found = getattr(self.inner, name)
            return found(*args, **kwargs) if callable(found) else found
        except Exception as error:  # whatever a foreign library makes of a lost network or disk
            self.lost = True
            what = f"{type(self.inner).__name__} is lost ({' '.join(str(error).split())[:120]})"
            warnings.warn(f"{what}: training goes on without it, metrics.csv has everything", stacklevel=2)
            return None

    @property
    def name(self) -> str | None:
        return self.attempt("name")

    @property
    def version(self) -> Any:
        return self.attempt("version")

    @property
    def save_dir(self) -> str | None:
        return self.attempt("save_dir")

    def log_hyperparams(self, *args, **kwargs) -> None:
        """config.yaml in the run folder says it all."""

    def log_metrics(self, metrics, step=None) -> None:
        self.attempt("log_metrics", metrics, step=step)

    def save(self) -> None:
        self.attempt("save")

    def finalize(self, status: str) -> None:
        self.attempt("finalize", status)
