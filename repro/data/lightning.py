"""What Lightning asks of a data set: the one place where data meet a trainer, which is only looked at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from lightning.pytorch import LightningDataModule

from repro.data.stream import Batch, BatchStream
from repro.data.trust import remember
from repro.errors import UserError
from repro.registry import Plugin

__all__ = ["LightningAdapter"]


class LightningAdapter(LightningDataModule, Plugin):
    """Answers a trainer's questions about a set of images, in any ``lightning.Trainer``.

    The training loader is one stream for the whole run that begins at the module's ``images_seen``. Without held-out
    images there is no validation loader, so that a training goes on without validation.

    Attributes:
        holdout: How many images are held out.
    """

    holdout: int

    @abstractmethod
    def prepare(self) -> None:
        """Finds, downloads and decodes what is missing."""

    @abstractmethod
    def check(self) -> None:
        """Loads what is kept in memory and looks at every other image, so that a bad one is named now."""

    @abstractmethod
    def stream(
        self,
        length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        start: Callable[[], int] | None = None,
        pin_memory: bool = False,
    ) -> BatchStream:
        """The training batches of one rank."""

    @abstractmethod
    def held_out_batches(self, rank: int = 0, world_size: int = 1) -> Sequence[Batch]:
        """The held-out images of one rank, in order."""

    def prepare_data(self) -> None:
        """Finds, downloads and decodes what is missing, before training and on one process a machine."""
        self.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Loads what is kept in memory, so that a bad image is found before the first step.

        Raises:
            UserError: a validation run without held-out images; training without them goes on without validation.
        """
        if not self.holdout and stage == "validate":
            raise UserError("no images are held out to validate on; give for example --data.holdout 1000")
        self.check()
        if stage == "fit":
            remember(self)
        self.__dict__.pop("val_dataloader", None)
        if not self.holdout:
            self.__dict__["val_dataloader"] = None  # how Lightning knows that there is no such loader

    def train_dataloader(self) -> BatchStream:
        """The stream of the whole run: ``max_steps * accumulate_grad_batches`` batches are one Lightning epoch.

        Without ``max_steps`` an epoch is one pass over the images.
        """
        trainer = self.trainer
        if trainer is None:
            return self.stream()
        length = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else None
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return self.stream(length, trainer.global_rank, trainer.world_size, self._images_seen, on_gpu)

    def val_dataloader(self) -> Sequence[Batch]:
        """The held-out images in order, each on one rank once."""
        trainer = self.trainer
        return self.held_out_batches(*((trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)))

    def _images_seen(self) -> int:
        trainer = self.trainer
        return int(getattr(trainer.lightning_module, "images_seen", 0)) if trainer is not None else 0
