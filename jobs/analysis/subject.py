"""What is analysed: the base model and the rows of a run, opened as the run itself opens them, without a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.data.token_cache import TokenCache
from jobs.device import choose_precision, torch_name
from jobs.methods.registry import get_method
from jobs.models.architectures import require_task
from jobs.models.device import probe
from jobs.models.loading import DTYPES, load_model, load_tokenizer
from jobs.run import length_limit
from jobs.spec import EngineSpec, RunSpec
from jobs.tasks.registry import make_work
from jobs.tasks.work import Means, Rows, Work
from jobs.training.rowsets import EncodedSets
from jobs.training.running import Runner

# Linear layers must be called as modules, to be looked at: nothing that takes several of them together.
_PLAIN = EngineSpec(one_gemm_lora=False, compile=False, packed_weights=False)


@dataclass(frozen=True)
class Subject:
    """A run's task, rows and base. `bits` are those that its method holds the base in; `precision` is that of the arithmetic."""

    spec: RunSpec
    work: Work
    rows: Rows
    tokenizer: Any
    precision: str
    device: str
    bits: int

    @classmethod
    def open(cls, spec: RunSpec, cache: TokenCache, report: Callable[[int], None] = lambda _done: None) -> Subject:
        """Reads and tokenises the rows, of which `report` gets the number so far. Raises `UserError` for what a run would refuse."""
        found, method = probe(), get_method(spec.method.id)
        bits = method.base_bits(method.resolve(dict(spec.method.settings)))
        architecture, work = require_task(Path(spec.model.path), spec.task), make_work(spec.task)
        tokenizer = load_tokenizer(Path(spec.model.path), writes=work.needs_end)
        rows = work.read(spec, tokenizer, architecture=architecture, cache=cache, report=report)
        return cls(spec, work, rows, tokenizer, choose_precision(spec.training.precision, found), torch_name(found), bits)

    def load(self, bits: int) -> Loaded:
        """The frozen base at `bits` (16: as the precision has it), with the head of the task. Raises `UserError`."""
        model = load_model(
            Path(self.spec.model.path),
            precision=self.precision,
            trains_base=False,
            bits=bits,
            device=self.device,
            head=self.work.head(self.tokenizer, self.spec.seed),
        )
        model.requires_grad_(False)
        encoded = self.rows.encoded(self.spec.training, length_limit(model))
        means, plain = Means(DTYPES[self.precision], self.device), replace(self.spec, engine=_PLAIN)
        runner, _ = self.work.forward(model, encoded.train.rows[: self.spec.training.micro_batch], means, plain)
        return Loaded(runner, encoded, self.rows.held_out_split)


@dataclass(frozen=True)
class Loaded:
    """A base that is ready to run, and the rows as it takes them; `split` names those that runs are compared on."""

    runner: Runner
    encoded: EncodedSets
    split: str

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.runner.model
