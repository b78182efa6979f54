"""From one text to another by encoder-decoders such as T5: the prompt is read, the completion written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from jobs.data.split import spread
from jobs.evaluation.answers import exact
from jobs.models.heads import Head
from jobs.spec import EvaluationSpec, Task
from jobs.tasks.forward import Framing, Laid, TaskForward, Text, side_by_side, text_inputs
from jobs.tasks.reading import HeadWork, Made, Record, covering, cut_count, tokenise
from jobs.tasks.work import Answer, Held, Judged, Progress, evaluation
from jobs.training.loop import token_figures
from jobs.training.loss import DatasetLoss, dataset_loss

# What transformers leaves out of a target.
IGNORED = -100


@dataclass(frozen=True)
class PairRow:
    """A prompt as tokens, and the completion's int32 [labels], the end of the sequence included where the tokenizer sets one."""

    prompt: Text
    target: NDArray[np.int32]

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 [length]: the tokens of both."""
        return np.concatenate([self.prompt.ids, self.target])

    @property
    def labels(self) -> int:
        """The tokens of the completion."""
        return len(self.target)

    @property
    def content(self) -> bytes:
        """Tokens, and where the prompt ends."""
        return self.ids.tobytes() + np.int32(len(self.target)).tobytes()


@dataclass(frozen=True)
class PairKind:
    """The model's own logits of each token of the completion after those before it (a `jobs.tasks.forward.Kind`)."""

    framing: Framing

    def lay(self, rows: Sequence[PairRow]) -> Laid:
        """Prompts side by side, and completions."""
        labels = side_by_side([row.target for row in rows], IGNORED)
        inputs = text_inputs([row.prompt for row in rows], self.framing) | {"labels": labels}
        return Laid(inputs, labels, sum(len(row.ids) for row in rows))

    def logits(self, outputs: Any, laid: Laid) -> list[Tensor]:
        """[labels, vocabulary] for each row."""
        kept = laid.targets != IGNORED
        return [row[mask].float() for row, mask in zip(outputs.logits, kept, strict=True)]

    def loss(self, outputs: Any, laid: Laid) -> Tensor:
        """Cross-entropy, summed over the tokens."""
        logits = outputs.logits.float().flatten(0, 1)
        return functional.cross_entropy(logits, laid.targets.flatten(), ignore_index=IGNORED, reduction="sum")

    def hits(self, outputs: Any, laid: Laid) -> int:
        """How many tokens are the likeliest."""
        return int((outputs.logits.argmax(-1) == laid.targets).sum())


class Seq2SeqLm(HeadWork):
    """Loss, perplexity and token accuracy go by token, exact match by what the model writes (greedily)."""

    task: Task = "seq2seq_lm"
    needs_end = True

    def learn(self, train: Any, held_out: Sequence[Any], tokenizer: Any, architecture: str) -> None:
        """How prompts are framed."""
        del train, held_out, architecture
        self.framing = Framing.of(tokenizer, causal=False)

    def encode(self, records: Sequence[Record], tokenizer: Any, limit: int) -> Made:
        """One row a record, prompt and completion each at most `limit` tokens."""
        made = []
        for name in ("prompt", "completion"):
            texts = [record[name] for record in records]
            made.append((tokenise(tokenizer, texts, None), tokenise(tokenizer, texts, None, limit)))
        (prompts, cut_prompts), (targets, cut_targets) = made
        rows = [PairRow(prompt, target.ids) for prompt, target in zip(cut_prompts, cut_targets, strict=True)]
        return Made(rows, list(range(len(rows))), cut_count(prompts, cut_prompts) + cut_count(targets, cut_targets))

    def natural_length(self, records: Sequence[Record], tokenizer: Any) -> int:
        """Of most prompts and completions."""
        texts = [record[name] for record in records for name in ("prompt", "completion")]
        return covering([len(text.ids) for text in tokenise(tokenizer, texts, None)])

    def head(self, tokenizer: Any, seed: int) -> Head:
        """The model as it stands."""
        return Head("AutoModelForSeq2SeqLM", {}, seed)

    def figures(self, found: DatasetLoss) -> dict[str, Any]:
        """As for writing."""
        return token_figures(found)

    def evaluate(self, runner: TaskForward, held: Held, spec: EvaluationSpec, progress: Progress) -> dict[str, Any]:
        """All rows by their tokens; `spec.rows` of them, evenly spread, by what the model writes."""
        started = time.monotonic()
        records, held_out = held.records, held.rows
        found = self._tokens(runner, held_out.rows, progress)
        answers = []
        places = {index: place for place, index in enumerate(held_out.indices)}
        for index in self.asked(held, spec):
            written = self._write(runner, held_out.rows[places[index]], held.tokenizer, spec.max_new_tokens)
            answers.append(Answer(index, written, records[index]["completion"], exact(written, records[index]["completion"])))
        share = sum(bool(answer.correct) for answer in answers) / len(answers) if answers else None
        loss = {"loss": found.loss, **self.figures(found)} if found.tokens else {}
        return evaluation(
            Judged({**loss, "exact_match": share, "metrics": {"exact_match": share}}, answers),
            lambda index: str(records[index]["prompt"]),
            spec.samples,
            started=started,
            rows=len(held_out.rows),
            tokens=found.tokens,
        )

    def asked(self, held: Held, spec: EvaluationSpec) -> list[int]:
        """Those whose completion the model writes."""
        return spread(super().asked(held, spec), spec.rows) if spec.generate else []

    def kind(self) -> PairKind:
        """Prompts side by side, and completions."""
        return PairKind(self.framing)

    def _tokens(self, runner: TaskForward, rows: Sequence[PairRow], progress: Progress) -> DatasetLoss:
        """Sums over all tokens of completions. Logits are not kept: a vocabulary for each would fill memory."""
        return dataset_loss(runner, rows, progress)

    @torch.no_grad()
    def _write(self, runner: TaskForward, row: PairRow, tokenizer: Any, most: int) -> str:
        """What the model writes for a prompt."""
        inputs = {name: tensor.to(runner.device) for name, tensor in text_inputs([row.prompt], self.framing).items()}
        written = runner.model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
        return str(tokenizer.decode(written[0], skip_special_tokens=True)).strip()
