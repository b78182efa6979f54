"""What the pages of the data check are asked by their address: every mistake in it is passed over for the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.spec import LossOn
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import SPLITS

VIEWS = ("rendered", "tokens", "raw")
MOST_TOKENS = 1_000_000


@dataclass(frozen=True)
class Question:
    """Which rows, for which model. `row` counts from 1, as people do; `maximum` is None where nothing is cut."""

    model: BaseModel | None
    split: str
    splits: Sequence[str]
    row: int
    rows: int
    view: str
    loss_on: LossOn
    maximum: int | None


def question(values: Mapping[str, str], version: DatasetVersion, models: Sequence[BaseModel]) -> Question:
    """The question of a query string, about what is there."""
    splits = [split for split in SPLITS if version.rows(split)]
    split = values.get("split", "")
    split = split if split in splits else splits[0]
    wanted = values.get("model", "")
    model = next((one for one in models if str(one.pk) == wanted), models[0] if models else None)
    rows = version.rows(split)
    view = values.get("view", "")
    return Question(
        model=model,
        split=split,
        splits=splits,
        row=min(max(1, _whole(values.get("row", "")) or 1), rows),
        rows=rows,
        view=view if view in VIEWS else VIEWS[0],
        loss_on="all" if values.get("loss_on") == "all" else "completion",
        maximum=_whole(values.get("maximum", "")) or None,
    )


def _whole(text: str) -> int:
    return min(int(text), MOST_TOKENS) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def visible(text: str) -> str:
    """A token with its white space made visible."""
    return text.replace("\r", "␍").replace("\n", "↵").replace("\t", "⇥").replace(" ", "·")
