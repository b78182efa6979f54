"""What a method does between the steps of a training, besides the forward and backward of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from jobs.methods.entry import SettingValue
from jobs.methods.setup import Setup

# (name of a trained weight, places in it laid flat: int64 [entries])
Reset = Callable[[str, Tensor], None]


class Hooks:
    """Does nothing; a method's own class overrides what it needs. Made of the model as `apply` returned it.

    Whatever a hook changes besides trained weights must be in `state`, so that a resumed run goes on bit for bit.
    """

    def __init__(self, model: Any = None, settings: Mapping[str, SettingValue] | None = None, setup: Setup | None = None) -> None:
        self.model, self.settings, self.setup = model, settings or {}, setup or Setup(seed=0)

    def decays(self, weight: str) -> bool:
        """Whether weight decay may shrink a trained matrix, by its name; not where its numbers stand for something else than a size."""
        return True

    def penalty(self) -> Tensor | None:
        """What is added to the loss of each step once, float32 [], with gradient; None where there is nothing."""
        return None

    def after_update(self, step: int, reset: Reset) -> None:
        """Runs when the weights of step `step` (counted from 1) are updated; their gradients are still there. `reset` makes the optimiser
        forget what it knows of some entries of a weight, as where they come to stand for something else.
        """

    def as_base(self) -> AbstractContextManager[None]:
        """Within it the model computes what the base did before the method was applied to it."""
        return self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else nullcontext()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides the trained weights."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""

    def observe(self) -> dict[str, Any] | None:
        """What the run's page shows of the method's inside, as the data of a `method` event less its step; None where there is nothing."""
        return None

    @property
    def remark(self) -> str:
        """A sentence for the model card, where what is saved has another form than the settings say."""
        return ""

    def save(self, folder: Path) -> None:
        """Writes the adapter into `folder` as PEFT does; overridden where a plain save would not give the trained model back."""
        # peft would look the vocabulary up by the base's path or at the hub to decide whether embeddings were resized; ours never are.
        self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)

    def save_for_original(self, folder: Path) -> None:
        """Writes the adapter as it is added to the 16-bit weights of a base that was quantised: mostly no other than `save`."""
        self.save(folder)
