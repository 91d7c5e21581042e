"""Catalogs in, loaders of training and dev batches out, resumed in O(1) from the number of steps done."""

import warnings
from collections.abc import Mapping, Sequence

import pytorch_lightning as lightning
from torch.utils.data import DataLoader

from glmasr.data.catalog import Catalog
from glmasr.data.dataset import Augmentation, Mixing, Silencing, SpeechDataset, collate
from glmasr.data.sampler import RankBatches, in_order, order_of
from glmasr.speech import Batch, InputError
from glmasr.text.tokenizer import Tokenizer
from glmasr.training.preemption import deaf, shielded


class Loader(DataLoader):
    """A DataLoader whose processes no signal ends before they are deaf to it."""

    def __iter__(self):
        with shielded():
            return super().__iter__()


class SpeechBatches(lightning.LightningDataModule):
    """Endless training batches of `batch_seconds` padded audio, and dev batches in order of length.

    Global batch i is the same on every machine; step s of rank r with `accumulate` batches per optimizer step takes
    batches (s × accumulate + a) × world + r. `jitter`, `temperature` and `stream` are those of `sampler.order_of`.
    A machine's loaders keep `decoded_mb` of decoded training audio between them.
    """

    def __init__(
        self,
        train: Catalog,
        dev: Catalog,
        batch_seconds: float,
        jitter: float,
        temperature: float,
        workers: int,
        stream: Mapping[str, int],
        seed: int,
        augmentations: Sequence[Augmentation] = (),
        noise: Augmentation | None = None,
        tokenizer: Tokenizer | None = None,
        talker: Mixing | None = None,
        wordless: Silencing | None = None,
        decoded_mb: float = 0.0,
    ):
        super().__init__()
        self.train, self.dev, self.tokenizer = train, dev, tokenizer
        self.batch_seconds, self.workers, self.seed = batch_seconds, workers, seed
        self.jitter, self.temperature, self.stream = jitter, temperature, stream
        self.augmentations, self.noise, self.talker, self.wordless = augmentations, noise, talker, wordless
        self.decoded_mb = decoded_mb

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        blocks, loaders = self.train.blocks, trainer.world_size * max(self.workers, 1)
        if blocks is not None and self.stream["lanes"] % loaders:
            warnings.warn(
                f"batches.stream.lanes={self.stream['lanes']} is no multiple of {loaders} (devices × workers): row "
                "groups will be fetched by several processes",
                RuntimeWarning,
                stacklevel=2,
            )
        order = order_of(
            self.train.durations,
            self.batch_seconds,
            self.jitter,
            self.seed,
            blocks=blocks,
            languages=self.train.languages_by_row if self.temperature != 1 else None,
            temperature=self.temperature,
            **self.stream,
        )
        start = trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size
        batches = RankBatches(order, trainer.global_rank, trainer.world_size, start)
        damage = (self.augmentations, self.noise, self.tokenizer, self.seed, self.talker, self.wordless)
        share = self.decoded_mb / (max(self.workers, 1) * trainer.num_devices)  # each of them has a copy of its own
        return self.loader(SpeechDataset(self.train, *damage, decoded_mb=share), batches)

    def val_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        if len(self.dev) < trainer.world_size:
            raise InputError(
                f"{trainer.world_size} devices share {len(self.dev)} dev utterance(s), and one would have none: choose "
                "more with splits.dev=…, or fewer devices"
            )
        seconds, batches = self.batch_seconds, in_order(self.dev.durations, self.batch_seconds)
        while len(batches) < trainer.world_size:  # every rank has at least one, or it would leave the others waiting
            seconds /= 2
            batches = in_order(self.dev.durations, seconds)
        dataset = SpeechDataset(self.dev, (), self.noise, self.tokenizer, self.seed)
        return self.loader(dataset, batches[trainer.global_rank :: trainer.world_size])

    def loader(self, dataset: SpeechDataset, batches) -> DataLoader:
        return Loader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.workers,
            worker_init_fn=deaf,
            persistent_workers=self.workers > 0,
            pin_memory=False,
        )

    def transfer_batch_to_device(self, batch: Batch, device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)
