"""Catalogs in, loaders of training and dev batches out, resumed in O(1) from the number of steps done."""

from collections.abc import Sequence

import pytorch_lightning as lightning
from torch.utils.data import DataLoader

from glmasr.data.catalog import Catalog
from glmasr.data.dataset import Augmentation, Mixing, SpeechDataset, collate
from glmasr.data.sampler import BucketBatches, in_order
from glmasr.speech import Batch
from glmasr.text.tokenizer import Tokenizer


class SpeechBatches(lightning.LightningDataModule):
    """Endless training batches of `batch_seconds` padded audio, and dev batches in order of length.

    Global batch i is the same on every machine; step s of rank r with `accumulate` batches per optimizer step takes
    batches (s × accumulate + a) × world + r.
    """

    def __init__(
        self,
        train: Catalog,
        dev: Catalog,
        batch_seconds: float,
        buckets: int,
        workers: int,
        seed: int,
        augmentations: Sequence[Augmentation] = (),
        noise: Augmentation | None = None,
        tokenizer: Tokenizer | None = None,
        talker: Mixing | None = None,
    ):
        super().__init__()
        self.train, self.dev, self.tokenizer = train, dev, tokenizer
        self.batch_seconds, self.buckets, self.workers, self.seed = batch_seconds, buckets, workers, seed
        self.augmentations, self.noise, self.talker = augmentations, noise, talker

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        batches = BucketBatches(
            self.train.durations,
            self.batch_seconds,
            self.buckets,
            self.seed,
            rank=trainer.global_rank,
            world=trainer.world_size,
            start=trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size,
        )
        dataset = SpeechDataset(self.train, self.augmentations, self.noise, self.tokenizer, self.seed, self.talker)
        return self.loader(dataset, batches)

    def val_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        batches = in_order(self.dev.durations, self.batch_seconds)
        dataset = SpeechDataset(self.dev, (), self.noise, self.tokenizer, self.seed)
        return self.loader(dataset, batches[trainer.global_rank :: trainer.world_size])

    def loader(self, dataset: SpeechDataset, batches) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=False,
        )

    def transfer_batch_to_device(self, batch: Batch, device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)
