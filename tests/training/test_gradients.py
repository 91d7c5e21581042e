"""A step's gradient in, its norm computed once, and the same steps as with Lightning's own clipping out."""

from itertools import pairwise

import pytest
import pytorch_lightning as lightning
import torch

from glmasr.training.gradients import Normed


class Theirs(lightning.LightningModule):
    """A layer whose gradients are longer than what they are clipped to in some steps, and shorter in others."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def training_step(self, batch, index):
        return (index % 3) ** 3 * self.layer(batch).square().mean()

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        return torch.utils.data.DataLoader(list(torch.randn(12, 4, 8, generator=generator)), batch_size=None)

    def configure_optimizers(self):
        groups = [{"params": [self.layer.bias]}, {"params": [self.layer.weight], "weight_decay": 0.1}]
        return torch.optim.AdamW(groups, lr=0.01, fused=True)


class Ours(Normed, Theirs):
    pass


class Asks(lightning.Callback):
    """Looks twice a step, as guards and health do."""

    def __init__(self):
        self.norms = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        asked = [module.gradient_norm(optimizer) for _ in range(2)]
        expected = torch.cat([p.grad.flatten() for p in module.parameters()]).norm()
        assert asked[0] is asked[1] and torch.allclose(asked[0], expected)
        self.norms.append(float(asked[0]))


def trainer_of(folder, **settings):
    """One that leaves nothing behind."""
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=folder, **quiet, **settings)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "clip", [{}, {"gradient_clip_val": 0.5}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}]
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_are_lightning_s_own_bit_for_bit(tmp_path, clip, accumulate):
    weights, asks = [], Asks()
    for kind, callbacks in ((Theirs, []), (Ours, [asks])):
        torch.manual_seed(0)
        module = kind()
        trainer_of(tmp_path, max_epochs=2, callbacks=callbacks, accumulate_grad_batches=accumulate, **clip).fit(module)
        weights.append(module.layer.weight.detach().clone())
    assert torch.equal(*weights)
    assert len(asks.norms) == 24 // accumulate and all(before != after for before, after in pairwise(asks.norms))


@pytest.mark.filterwarnings("ignore")
def test_scaled_gradients_are_left_to_lightning(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(Theirs, "configure_gradient_clipping", lambda *_: left.append(1), raising=False)
    trainer = trainer_of(tmp_path, max_steps=2, gradient_clip_val=0.5)
    trainer.precision_plugin.scaler = object()  # type: ignore[attr-defined]
    trainer.fit(Ours())
    assert len(left) == 2
