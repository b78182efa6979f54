"""Writing: chats, completions and plain text on causal models, with every fast way of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from jobs.data.encoding import Encoded
from jobs.data.token_cache import TokenCache
from jobs.evaluation import evaluate, sample, to_sample
from jobs.export.parity import beginnings, causal_logits
from jobs.models.heads import CAUSAL, Head
from jobs.spec import EvaluationSpec, RunSpec
from jobs.tasks.work import Held, Means, Progress, Sampler, Work
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward
from jobs.training.loop import token_figures
from jobs.training.loss import DatasetLoss, dataset_loss
from jobs.training.rowsets import RowSets, tokenise_rows


class CausalLm(Work):
    """The loss is the mean over label tokens."""

    writes = True
    needs_end = True

    def read(self, spec: RunSpec, tokenizer: Any, *, architecture: str, cache: TokenCache, report: Callable[[int], None]) -> RowSets:
        """The rows, tokenised or found in `cache`."""
        del architecture
        return tokenise_rows(
            spec.data,
            tokenizer,
            model_folder=Path(spec.model.path),
            loss_on=spec.training.loss_on,
            seed=spec.seed,
            cache=cache,
            report=report,
        )

    def head(self, tokenizer: Any, seed: int) -> Head:
        """The model as it stands."""
        return CAUSAL

    def forward(self, model: Any, rows: Sequence[Any], means: Means, spec: RunSpec) -> tuple[Forward, list[str]]:
        """The fastest way that gives what the plain one gives, tried on some rows."""
        return choose_forward(model, rows, dtype=means.dtype, device=means.device, batching=spec.training.batching, engine=spec.engine)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """Perplexity and token accuracy."""
        return token_figures(found)

    def evaluate(self, runner: Forward, held: Held, spec: EvaluationSpec, progress: Progress) -> dict[str, Any]:
        """Loss over all rows; what it finds likely, and what it writes, over some (`jobs.evaluation.evaluate`)."""
        found = evaluate(
            runner.model,
            held.tokenizer,
            [held.records[index] for index in held.rows.indices],
            spec,
            loss_of=lambda: dataset_loss(runner, held.rows.rows, progress),
            progress=progress,
        )
        return {**found, "metrics": {}}

    def sampler(self, held: Held, spec: EvaluationSpec, most: int) -> Sampler | None:
        """Writes the answers to some questions, and measures nothing."""
        asked = to_sample([held.records[index] for index in held.rows.indices], held.tokenizer, spec, most)
        return (lambda runner: sample(runner.model, held.tokenizer, asked)) if asked.questions else None

    def logits(self, model: Any, row: Sequence[int]) -> Tensor:
        """[positions, vocabulary] of one row of token ids."""
        return causal_logits(model, row)

    def compared(self, rows: Sequence[Encoded]) -> list[list[int]]:
        """The first tokens of some rows."""
        return beginnings(row.ids.tolist() for row in rows)
