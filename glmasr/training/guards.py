"""Gradients and losses in, steps that would do harm left out or taken back; what goes wrong for good is diagnosed."""

import json
import statistics
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import Tensor

from glmasr.bundle import load_weights, save_weights
from glmasr.speech import Batch, InputError
from glmasr.training.checkpoints import Damaged, check, found, step_of
from glmasr.training.gradients import Normed, local
from glmasr.training.loggers import is_logged

REMEMBERED = 50
"""Losses that a spike is measured against: their median."""

ROLLBACKS = 5
"""A run that has to be taken back more often has another trouble than its data."""


class Diverged(InputError):
    """A run that cannot go on was stopped; the message says what was no number, and where to look."""


class Guards(lightning.Callback):
    """Skips every step whose gradient is not finite, and by choice takes back what led to a spike of the loss.

    A skipped step changes neither weights nor the optimizer's memory, and is counted; `bad_steps` of them in a row stop
    the run (`Diverged`), with the batch in replay/. Every rank sees the same gradient, so every rank decides alike.
    Where the loss is `spike_factor` times the median of the last 50 for `spike_steps` steps, weights and optimizer
    go back to the newest checkpoint before; steps go on, so the data of the spike is not met again in this epoch.

    Whether to skip is decided on the device (fused optimizers take a flag there). The host reads a step's figures
    one step later, when they have long been there: no step waits for it.
    """

    def __init__(
        self,
        folder: Path,
        bad_steps: int,
        spike_factor: float | None,
        spike_steps: int,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        self.folder, self.bad_steps, self.say = folder, bad_steps, say
        self.spike_factor, self.spike_steps = spike_factor, spike_steps
        self.skipped, self.streak, self.spiked, self.rollbacks = 0, 0, 0, 0
        self.spike_began: int | None = None
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        self.unread: tuple[int, Tensor, Tensor] | None = None  # step, whether it was bad, its loss
        self.loss: Tensor | None = None  # of this step so far
        self.batch: Batch | None = None
        self.suspect: Batch | None = None
        self.pending: tuple[Batch, Tensor] | None = None

    def state_dict(self) -> dict:
        """For the checkpoint; a figure not looked at yet is kept as it is, so that a resumed run looks then too."""
        step, bad, loss = self.unread or (-1, torch.zeros(()), torch.zeros(()))
        kept = ("skipped", "streak", "spiked", "spike_began", "rollbacks")
        unread = {"step": step, "bad": float(bad), "loss": float(loss)}
        return {name: getattr(self, name) for name in kept} | {"losses": list(self.losses), "unread": unread}

    def load_state_dict(self, state_dict: dict) -> None:
        state, unread = dict(state_dict), state_dict["unread"]
        self.losses = deque(state.pop("losses"), maxlen=REMEMBERED)
        for name in ("skipped", "streak", "spiked", "spike_began", "rollbacks"):
            setattr(self, name, state[name])
        if unread["step"] >= 0:
            self.unread = unread["step"], torch.tensor(unread["bad"]), torch.tensor(unread["loss"])

    def on_train_batch_start(self, trainer, module, batch, batch_index) -> None:
        if self.spike_factor and self.spiked >= self.spike_steps and self.loss is None:
            self.roll_back(trainer)
        self.batch = batch

    def on_before_backward(self, trainer, module, loss: Tensor) -> None:
        """Add up the step's loss over its batches, and remember the last batch whose loss was no number."""
        loss = loss.detach()
        if self.pending is not None and not bool(self.pending[1]):
            self.suspect = self.pending[0]
        assert self.batch is not None
        self.pending = self.batch, loss.isfinite()
        self.loss = loss if self.loss is None else self.loss + loss

    def on_before_optimizer_step(self, trainer, module: Normed, optimizer) -> None:
        """Flag the step as bad where its gradient is not finite, and judge the step before."""
        assert self.loss is not None
        self.look_back()
        loss = trainer.strategy.reduce(self.loss, reduce_op="mean") if trainer.world_size > 1 else self.loss
        bad = (~module.gradient_norm(optimizer).isfinite()).float()
        self.unread, self.loss = (trainer.global_step, bad, loss), None
        many = trainer.world_size * trainer.accumulate_grad_batches > 1
        if many and is_logged(trainer, trainer.global_step + 1):
            module.log("train/update_loss", loss)
        skip(optimizer, module, bad)
        if self.streak >= self.bad_steps - 1:
            self.look_back()
        if self.streak >= self.bad_steps:
            self.stop(trainer, module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if self.skipped:
            module.log("guards/skipped", float(self.skipped))

    def look_back(self) -> None:
        """Read what the step before left on the device."""
        if self.unread is None:
            return
        (step, bad, loss), self.unread = self.unread, None
        if bool(bad):
            self.streak, self.skipped = self.streak + 1, self.skipped + 1
            self.say(f"step {step} is skipped, its gradient is not finite ({self.skipped} skipped so far)")
            return
        self.streak = 0
        if self.spike_factor is None:
            return
        value = float(loss)
        full = len(self.losses) == REMEMBERED
        if full and value > self.spike_factor * statistics.median(self.losses):
            self.spiked += 1
            self.spike_began = step if self.spike_began is None else self.spike_began
        else:
            self.spiked, self.spike_began = 0, None
            self.losses.append(value)

    def roll_back(self, trainer) -> None:
        """Take weights and optimizer from the newest checkpoint before the spike; the schedule and the data go on."""
        began, self.spiked, self.spike_began = self.spike_began, 0, None
        assert began is not None
        self.rollbacks += 1
        if self.rollbacks > ROLLBACKS:
            raise Diverged(f"stopped at step {trainer.global_step}: the loss spiked {self.rollbacks} times; {REMEDY}")
        path = trainer.strategy.broadcast(newest_before(self.folder / "checkpoints", began))
        if path is None:
            self.say(f"the loss spiked at step {began}, and no checkpoint is older: training goes on")
            return
        checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
        trainer.strategy.load_model_state_dict(checkpoint, strict=True)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        for schedule in trainer.lr_scheduler_configs:
            rates = schedule.scheduler.get_last_lr()
            for group, rate in zip(schedule.scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        self.say(f"the loss spiked at step {began}: weights and optimizer are those of {path.name} again, steps go on")

    def stop(self, trainer, module) -> None:
        """Say what is not finite, on which rank, and keep the batch; on every rank."""
        assert self.batch is not None
        if self.pending is not None and not bool(self.pending[1]):
            self.suspect = self.pending[0]
        batch = self.suspect or self.batch
        path = self.folder / "replay" / f"step_{trainer.global_step:09d}_rank_{trainer.global_rank}.safetensors"
        save_batch(path, batch)
        causes = gathered((cause(module, batch) if self.suspect else "", str(path)))
        rank, (what, kept) = next(
            ((rank, told) for rank, told in enumerate(causes) if told[0]), (0, (cause(module, batch), str(path)))
        )
        where = f" on rank {rank}" if trainer.world_size > 1 else ""
        raise Diverged(
            f"stopped at step {trainer.global_step}: {self.streak} steps in a row had no finite gradient; "
            f"{what}{where}. The batch is in {kept}; {REMEDY}"
        )


REMEDY = (
    "lower optimizer.learning_rate, lengthen schedule.warmup_share, or take trainer.precision=32-true; the same "
    "command goes on from the last checkpoint"
)


def skip(optimizer: torch.optim.Optimizer, module: torch.nn.Module, bad: Tensor) -> None:
    """Let the optimizer's next step do nothing where `bad` is 1: fused ones look at a flag on the device themselves.

    For any other the host has to wait for the flag, and takes the gradients away.
    """
    inner = getattr(optimizer, "_optimizer", optimizer)
    if getattr(inner, "_step_supports_amp_scaling", False):
        inner.found_inf = bad  # type: ignore[attr-defined]
    elif bool(bad):
        for parameter in module.parameters():
            parameter.grad = None


def newest_before(folder: Path, step: int) -> Path | None:
    """The newest undamaged checkpoint of at most so many steps."""
    for path in found(folder):
        try:
            if step_of(path) <= step and check(path) is None:
                return path
        except Damaged:
            continue
    return None


def cause(module: torch.nn.Module, batch: Batch) -> str:
    """What is not finite, the earliest first: a weight, the audio, a part of the loss, or only a gradient."""
    weights = [name for name, p in module.named_parameters() if not is_finite(p.detach())]
    if weights:
        return f"the weights {weights[0]} and {len(weights) - 1} more are not finite already"
    named = f"batch {batch.index} ({', '.join(batch.ids[:3])}{' …' if len(batch.ids) > 3 else ''})"
    if not is_finite(batch.waveform) or (batch.clean is not None and not is_finite(batch.clean)):
        return f"the audio of {named} is not finite"
    seen = getattr(module, "seen", None)
    parts = [name for name, value in seen.parts.items() if not is_finite(value)] if seen else []
    if parts:
        return f"the loss's {parts[0]} is not finite at {named}"
    gradients = [name for name, p in module.named_parameters() if p.grad is not None and not is_finite(p.grad)]
    return f"the gradient of {gradients[0] if gradients else 'some weight'} is not finite at {named}"


def is_finite(tensor: Tensor) -> bool:
    """Whether all of a tensor, or of this rank's part of it, is."""
    return bool(local(tensor).isfinite().all())


def gathered(own) -> list:
    """What every rank says, in their order; all of them have to ask."""
    _, ranks = rank()
    everyone: list = [own] * ranks
    if ranks > 1:
        torch.distributed.all_gather_object(everyone, own)
    return everyone


def rank() -> tuple[int, int]:
    """Which of how many ranks this process is."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def save_batch(path: Path, batch: Batch) -> None:
    """Keep a batch: its tensors as safetensors, the rest beside them as JSON."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    save_weights(path, tensors)
    rest = {name: value for name, value in vars(batch).items() if name in ("ids", "texts", "index")}
    path.with_suffix(".json").write_text(json.dumps(rest, ensure_ascii=False, indent=1))


def load_batch(path: Path) -> Batch:
    """A batch that `save_batch` kept: `module.loss(load_batch(path))` is the loss that was no number."""
    rest = json.loads(path.with_suffix(".json").read_text())
    absent = dict.fromkeys(("clean", "tokens", "token_lengths"))
    rest |= {"ids": tuple(rest["ids"]), "texts": tuple(rest["texts"])}
    return Batch(**absent | load_weights(path) | rest)  # type: ignore[arg-type]
