"""What virtual tokens are at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle, islice

import torch
from torch import Tensor

from jobs.methods.entry import SettingValue
from jobs.methods.selection import setting_unfit
from jobs.methods.setup import Setup


def start_ids(settings: Mapping[str, SettingValue], setup: Setup, *, method: str) -> Tensor:
    """int64 [virtual tokens]: the real tokens to start from: those of the start text, repeated where it is too short, or those that the
    training rows begin with, from a row on that the seed chooses.

    Raises `UserError("method_setting")` where the start text has no tokens.
    """
    count = int(settings["virtual_tokens"])
    if settings["start"] == "rows":
        return torch.tensor(list(islice(_of_rows(setup), count)))
    ids = setup.tokenizer(str(settings["start_text"]))["input_ids"]
    if not ids:
        raise setting_unfit(method, "start_text", "is empty; write a sentence, or choose another start")
    return torch.tensor(list(islice(cycle(ids), count)))


def _of_rows(setup: Setup) -> Iterator[int]:
    """The tokens of the training rows end to end, without end."""
    order = torch.randperm(len(setup.rows), generator=torch.Generator().manual_seed(setup.seed)).tolist()
    for place in cycle(order):
        yield from setup.rows[place].ids.tolist()
