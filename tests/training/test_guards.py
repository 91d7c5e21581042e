"""A step without a finite gradient leaves no trace, too many stop the run with their cause, a spike is taken back."""

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as lightning
import torch

from glmasr.speech import Batch
from glmasr.training.callbacks import Checkpoints
from glmasr.training.checkpoints import Written
from glmasr.training.gradients import Normed
from glmasr.training.guards import Diverged, Guards, cause, load_batch, save_batch, skip


def batch(index: int, value: float = 1.0) -> Batch:
    waveform = torch.full((2, 4), value)
    return Batch(waveform, torch.tensor([4, 3]), None, None, None, (f"a{index}", f"b{index}"), (None, "went"), index)


class Line(Normed):
    """A weight that follows the batches' mean; `spoil` says what each step's batches hold."""

    def __init__(self, spoil):
        super().__init__()
        self.weight, self.spoil, self.scale = torch.nn.Parameter(torch.ones(4)), spoil, 1.0

    def training_step(self, batch, index):
        loss = self.scale * (self.weight * batch.waveform).square().mean()
        if self.global_step in self.spoil and self.spoil[self.global_step] > 0:
            loss = loss * self.spoil[self.global_step]
        return loss

    def train_dataloader(self):
        rows = [batch(n, math.nan if self.spoil.get(n, 0) < 0 else 1.0) for n in range(400)]
        return torch.utils.data.DataLoader(rows[self.trainer.global_step :], batch_size=None)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, fused=True)


def train(tmp_path, spoil, steps, bad_steps=3, spike_factor=None, every=1000, said=None):
    """Guards, module and trainer after so many steps; below 0 a step's audio is NaN, above 0 its loss is scaled."""
    said = [] if said is None else said
    guards = Guards(tmp_path, bad_steps, spike_factor, 2, said.append)
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        callbacks=[guards, Checkpoints(tmp_path / "checkpoints", every, 9, None)],
        plugins=[Written()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Line(spoil)
    return guards, module, trainer


@pytest.mark.filterwarnings("ignore")
def test_a_bad_step_changes_nothing_and_is_counted(tmp_path):
    said = []
    guards, module, trainer = train(tmp_path, {4: -1, 6: -1, 7: -1}, 12, said=said)
    trainer.fit(module)
    _, clean, other = train(tmp_path / "clean", {}, 9)
    other.fit(clean)
    assert torch.equal(module.weight, clean.weight)  # twelve steps, of which three did nothing
    state = trainer.optimizers[0].state[module.weight]
    assert state["step"] == 9 and state["exp_avg"].isfinite().all()
    assert guards.skipped == 3 and [line.split(" is")[0] for line in said] == ["step 4", "step 6", "step 7"]


@pytest.mark.filterwarnings("ignore")
def test_too_many_in_a_row_stop_with_the_cause_and_the_batch(tmp_path):
    _, module, trainer = train(tmp_path, {4: -1, 6: -1, 7: -1, 8: -1}, 12)
    with pytest.raises(Diverged) as error:
        trainer.fit(module)
    told = str(error.value)
    assert told.startswith("stopped at step 8: 3 steps in a row had no finite gradient; the audio of batch 8 (a8, b8)")
    assert "lower optimizer.learning_rate" in told and "\n" not in told
    kept = load_batch(tmp_path / "replay" / "step_000000008_rank_0.safetensors")
    assert kept.ids == ("a8", "b8") and kept.texts == (None, "went") and kept.index == 8 and kept.tokens is None
    assert not module.training_step(kept, 0).isfinite()  # replayed


@pytest.mark.filterwarnings("ignore")
def test_a_spike_is_taken_back_to_the_checkpoint_before(tmp_path):
    said = []
    spoil = {61: 1e6, 62: 1e6}
    guards, module, trainer = train(tmp_path, spoil, 80, spike_factor=10.0, every=20, said=said)
    trainer.fit(module)
    assert guards.rollbacks == 1 and trainer.global_step == 80
    assert said == [
        "the loss spiked at step 61: weights and optimizer are those of step_000000060.ckpt again, steps go on"
    ]
    quiet, _, other = train(tmp_path / "quiet", {}, 80, spike_factor=10.0, every=20)
    other.fit(Line({}))
    assert quiet.rollbacks == 0


def test_the_guards_remember_over_a_resume(tmp_path):
    guards = Guards(tmp_path, 3, 2.0, 2, print)
    guards.skipped, guards.streak, guards.unread = 5, 1, (7, torch.ones(()), torch.tensor(0.5))
    guards.losses.extend([1.0, 2.0])
    again = Guards(tmp_path, 3, 2.0, 2, lambda line: None)
    again.load_state_dict(guards.state_dict())
    assert again.state_dict() == guards.state_dict()
    again.look_back()
    assert again.skipped == 6 and again.streak == 2


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimizer_without_a_flag_is_kept_from_the_gradients(optimizer):
    module = torch.nn.Linear(2, 1)
    step = optimizer(module.parameters(), lr=0.1)
    before = module.weight.clone()
    for bad in (1.0, 0.0):
        module(torch.ones(1, 2)).sum().backward()
        skip(step, module, torch.tensor(bad))
        step.step()
        assert torch.equal(module.weight, before) == bool(bad)
        step.zero_grad()


def test_the_cause_is_the_earliest_thing_that_is_not_finite():
    module = torch.nn.Linear(4, 1)
    module(torch.ones(1, 4)).sum().backward()
    module.seen = SimpleNamespace(parts={"contrast": torch.tensor(math.inf), "masked": torch.tensor(1.0)})
    assert cause(module, batch(3)) == "the loss's contrast is not finite at batch 3 (a3, b3)"
    module.seen.parts["contrast"] = torch.tensor(1.0)
    module.bias.grad[0] = math.nan
    assert cause(module, batch(3)) == "the gradient of bias is not finite at batch 3 (a3, b3)"
    assert cause(module, batch(3, math.inf)) == "the audio of batch 3 (a3, b3) is not finite"
    module.weight.data[0, 0] = math.nan
    assert "the weights weight and 0 more are not finite already" in cause(module, batch(3, math.inf))


def test_a_kept_batch_is_the_batch(tmp_path):
    one = batch(5, math.nan)
    save_batch(tmp_path / "b.safetensors", one)
    again = load_batch(tmp_path / "b.safetensors")
    assert torch.equal(again.waveform.isnan(), one.waveform.isnan()) and torch.equal(again.lengths, one.lengths)
