"""What the probe does while an encoder is pretrained: watch it, warn, and keep the weights that it likes best."""

import copy
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from glmasr.data.catalog import Catalog
from glmasr.data.dataset import SpeechDataset, collate
from glmasr.data.sampler import in_order
from glmasr.model.encoder import Encoder
from glmasr.speech import Batch
from glmasr.text.tokenizer import Tokenizer
from glmasr.training.callbacks import replace_file
from glmasr.training.probe import MARGIN, ProbeResult, Score, probe

BATCH_SECONDS = 30.0
"""Padded audio that is heard at once."""


def loaded(catalog: Catalog, tokenizer: Tokenizer) -> list[Batch]:
    """Labelled utterances as they were recorded, in memory, those alike in length together."""
    dataset = SpeechDataset(catalog, tokenizer=tokenizer)
    return [collate(dataset.__getitems__(keys)) for keys in in_order(catalog.durations, BATCH_SECONDS)]


class Probing(lightning.Callback):
    """Probes the encoder before its first step, every `every_steps`, and at the end all blocks of the best weights.

    What it was before its first step is named by `start`: untrained, or the bundle that training goes on from.

    Which weights are best is the probe's to say: the lowest CTC loss of any probed block. On the way only `blocks` of
    them are probed, evenly down from the top. The first and the concluding probe always run; of those between, one is
    skipped where it would bring what they have cost above its part of `max_share` of the expected time, so that the
    whole stays below `max_share` unless the two do not. Skipping depends on the clock, so the weights trained are the
    same with and without a probe, but not always which of them are kept. Rank 0 works, the others wait at a barrier.

    `probe.json` in the run folder keeps every result; a resumed run knows them and does not probe a step again.
    """

    def __init__(
        self,
        folder: Path,
        train: Sequence[Batch],
        dev: Sequence[Batch],
        tokenizer: Tokenizer,
        say: Callable[[str], None],
        every_steps: int,
        max_share: float,
        blocks: int,
        start: str = "untrained",
    ):
        self.start = start
        self.file, self.snapshots = folder / "probe.json", folder / "checkpoints"
        self.train, self.dev, self.tokenizer, self.say = train, dev, tokenizer, say
        self.every_steps, self.max_share, self.blocks = every_steps, max_share, blocks
        self.results: dict[int, ProbeResult] = {}
        self.final: ProbeResult | None = None
        self.spent: dict[int, float] = {}
        self.elapsed, self.since = 0.0, time.perf_counter()
        self.read()

    def read(self) -> None:
        """Go on from what the run folder knows."""
        if self.file.exists():
            kept = json.loads(self.file.read_text())
            self.results = {int(step): parsed(blocks) for step, blocks in kept["results"].items()}
            self.final = parsed(kept["final"]) if kept["final"] else None
            self.spent = {int(step): seconds for step, seconds in kept["spent_seconds"].items()}
            self.elapsed = kept["elapsed_seconds"]

    def write(self) -> None:
        kept = {
            "results": {step: asdict(result)["blocks"] for step, result in self.results.items()},
            "final": asdict(self.final)["blocks"] if self.final else None,
            "spent_seconds": self.spent,
            "elapsed_seconds": self.seconds(),
        }
        staged = self.file.with_suffix(".tmp")
        staged.write_text(json.dumps(kept, indent=1))
        replace_file(staged, self.file)

    def seconds(self) -> float:
        """Of training so far, what was stopped and resumed included."""
        return self.elapsed + time.perf_counter() - self.since

    @property
    def best_step(self) -> int | None:
        """Of the trained encoders probed so far; among equals the later."""
        trained = [step for step in self.results if step]
        return min(trained, key=lambda step: (self.results[step].best.ctc, -step), default=None)

    def weights(self) -> dict[str, Tensor]:
        """The best encoder's."""
        assert self.best_step is not None
        return load_file(self.path(self.best_step))

    def path(self, step: int) -> Path:
        return self.snapshots / f"probed_{step:09d}.safetensors"

    def on_train_start(self, trainer, module) -> None:
        self.since, self.final = time.perf_counter(), None
        if trainer.is_global_zero and trainer.global_step == 0:
            # Without a checkpoint nothing was trained, and the settings may have changed.
            self.results, self.spent, self.elapsed = {}, {}, 0.0
            self.visit(module, 0, trainer.loggers)
        trainer.strategy.barrier("probe")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        step = trainer.global_step
        last = step == trainer.max_steps
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if step % self.every_steps and not last:
            return
        must = last or step in self.results
        if trainer.is_global_zero and (must or self.is_affordable(step, trainer.max_steps, module)):
            self.visit(module, step, trainer.loggers)
        trainer.strategy.barrier("probe")

    def on_train_end(self, trainer, module) -> None:
        if trainer.is_global_zero:
            self.conclude(module, trainer.global_step, trainer.loggers)
        trainer.strategy.barrier("probe")

    def is_affordable(self, step: int, max_steps: int, module) -> bool:
        """Whether one more probe keeps to its part of `max_share`; what remains after the first and last is spread."""
        progress = step / max_steps if max_steps > 0 else 1.0
        cost = max(self.spent.values(), default=0.0)
        conclusion = cost * (1 + len(module.encoder.blocks) / len(self.on_the_way(module)))
        between = sum(seconds for step, seconds in self.spent.items() if step)
        free = self.max_share * self.seconds() / progress - self.spent.get(0, 0.0) - conclusion
        return between + cost <= free * progress

    def on_the_way(self, module) -> list[int]:
        """The blocks that are probed while training lasts."""
        total = len(module.encoder.blocks)
        return sorted({-(-total * (i + 1) // self.blocks) for i in range(self.blocks)})

    def visit(self, module, step: int, loggers) -> None:
        """Probe what there is now, log it, keep the weights if no others were better, and warn of negative transfer."""
        if step not in self.results:
            started = time.perf_counter()
            self.results[step] = self.probed(module.encoder, module.ear, self.on_the_way(module))
            if step and step == self.best_step:
                state = module.encoder.state_dict().items()
                self.snapshots.mkdir(parents=True, exist_ok=True)
                staged = self.path(step).with_suffix(".tmp")
                save_file({name: value.detach().cpu().contiguous() for name, value in state}, staged)
                replace_file(staged, self.path(step))
            self.spent[step] = time.perf_counter() - started
        self.report(step, loggers)
        self.write()
        for old in self.snapshots.glob("probed_*.safetensors"):
            if old != self.path(self.best_step or 0):
                old.unlink()

    def probed(self, encoder: Encoder, ear: nn.Module, blocks: Iterable[int]) -> ProbeResult:
        return probe(encoder, ear, self.train, self.dev, self.tokenizer, blocks)

    def report(self, step: int, loggers) -> None:
        """Write a row of its own, at the place of the step that is done."""
        now, start = self.results[step], self.results.get(0)
        values = {"probe/ctc": now.best.ctc, "probe/cer": now.best.cer}
        if start:
            values |= {f"probe/{self.start}_ctc": start.best.ctc, f"probe/{self.start}_cer": start.best.cer}
        values["probe/time_share"] = sum(self.spent.values()) / self.seconds()
        for logger in loggers:
            logger.log_metrics(values, max(step - 1, 0))
        beside = f", {self.start} {start.best.ctc:.3f}" if start and step else ""
        self.say(f"probe at step {step}: CTC {now.best.ctc:.3f} nats per token{beside}, CER {100 * now.best.cer:.1f} %")
        if start and now.best.ctc > (1 + MARGIN) * start.best.ctc:
            self.say(
                f"negative transfer at step {step}: speech is read less well from this encoder than from the one it "
                f"began as ({self.start}); lower the learning rate or the contrastive weight, or train on more and "
                "more similar audio"
            )

    def conclude(self, module, step: int, loggers=()) -> dict[str, Any]:
        """Probe the last step, then all blocks of the best: what a bundle should say. A second call costs nothing."""
        if step not in self.results:
            self.visit(module, step, loggers)
        if self.final is None:
            started, best = time.perf_counter(), copy.deepcopy(module.encoder)
            best.load_state_dict(self.weights())
            self.final = self.probed(best, module.ear, range(1, len(best.blocks) + 1))
            self.spent[step] += time.perf_counter() - started
            for logger in loggers:
                values = {f"probe/block_{block}_ctc": score.ctc for block, score in self.final.blocks.items()}
                logger.log_metrics(values, max(step - 1, 0))
            self.write()
        return {
            "step": self.best_step,
            "best_block": self.final.best_block,
            "reinitialized_blocks": self.final.reinitialized_blocks,
            "time_share": round(sum(self.spent.values()) / self.seconds(), 4),
            self.start: asdict(self.results[0].best) if 0 in self.results else None,
            **asdict(self.final),
        }


def parsed(blocks: dict[str, dict[str, float]]) -> ProbeResult:
    """A result as JSON has it."""
    return ProbeResult({int(block): Score(**score) for block, score in blocks.items()})
