"""CompositionSpec: which adapters are made one and how, from JSON; a relative path is relative to the spec file's folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from jobs.composition.combinations import COMBINATIONS, Id
from jobs.errors import UserError
from jobs.methods.registry import LORA_OF_BITS
from jobs.spec import (
    STRICT,
    VERSION,
    DataSpec,
    EvaluationSpec,
    ExportSpec,
    LossOn,
    MethodSpec,
    ModelSpec,
    PositiveInt,
    Precision,
    RunSpec,
    TrainingSpec,
    read_json,
    read_strictly,
)  # fmt: skip

# PEFT's names of the kinds of adapters that can be composed.
LOW_RANK, BLOCKS = "LORA", "BLOCK_SPARSE"
# The name of the `method` event that says what was made of what (jobs.events); in `eval` events the parts are numbered from 1.
EVENT, PART = "composition", "adapter {number}"


@dataclass(frozen=True)
class PartSpec:
    """An adapter: its zip as a run leaves it, or a folder as peft saves it; the weight of its update, and a name to be known by."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    path: str
    weight: Annotated[float, Field(ge=-100, le=100)] = 1.0
    name: str = ""


@dataclass(frozen=True)
class CompositionSpec:
    """One composition, whole.

    `rank` is what a combination of updates is cut to (None: the largest of the adapters'), `density` the share of entries that a pruning
    one keeps, `seed` what DARE drops by. `base_bits` are the base's while it is measured. `data` is as in a run's spec: with a run's own
    `data`, and its seed as `split_seed` (None: `seed`), the rows held out are the run's; to measure on the whole of a file, give it as
    `train` and `test`. Without it, Graft's general probe alone is measured.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    model: ModelSpec
    adapters: Annotated[list[PartSpec], Field(min_length=2, max_length=32)]
    combination: Id = "cat"
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    rank: PositiveInt | None = None
    base_bits: Literal[16, 8, 4] = 16
    data: DataSpec | None = None
    precision: Precision = "auto"
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    loss_on: LossOn = "completion"
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    export: ExportSpec = field(default_factory=lambda: ExportSpec(merge="none"))
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    split_seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    name: str = ""
    version: int = VERSION

    @classmethod
    def from_json(cls, body: Any) -> CompositionSpec:
        """Reads a JSON object. Raises `UserError` that names the first field at fault."""
        if isinstance(body, dict) and body.get("version", VERSION) != VERSION:
            raise UserError("spec_version", found=body["version"], expected=VERSION)
        return read_strictly(_ADAPTER, body)

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object; `from_json` gives an equal spec back."""
        return asdict(self)

    def as_run(self, kind: str) -> RunSpec:
        """The run whose model, rows, evaluation and export these are; `kind` is PEFT's name of the adapters' kind."""
        method = (
            MethodSpec(LORA_OF_BITS[self.base_bits]) if kind == LOW_RANK else MethodSpec("block_sparse", {"base_bits": str(self.base_bits)})
        )
        return RunSpec(
            model=self.model,
            data=self.data or DataSpec(train=""),
            method=method,
            training=TrainingSpec(precision=self.precision, max_length=self.max_length, loss_on=self.loss_on),
            evaluation=self.evaluation,
            export=self.export,
            seed=self.seed if self.split_seed is None else self.split_seed,
            name=self.name,
        )

    def facts(self) -> dict[str, Any]:
        """What was done, for people: the combination, what it depends on, and each adapter's weight by its name."""
        combination = COMBINATIONS[self.combination]
        return {
            "combination": combination.id,
            **({"rank": self.rank} if self.rank and combination.of == "update" else {}),
            **({"density": self.density} if combination.prunes else {}),
            **{PART.format(number=number): f"{name} x {part.weight:g}" for number, (part, name) in enumerate(self.named(), 1)},
        }

    def named(self) -> list[tuple[PartSpec, str]]:
        """Each adapter with its name: the one given, else its file's, never the place of it."""
        return [(part, " ".join(part.name.split()) or Path(part.path).stem) for part in self.adapters]


_ADAPTER: TypeAdapter[CompositionSpec] = TypeAdapter(CompositionSpec)


def load_composition(path: Path) -> CompositionSpec:
    """Reads a spec file and makes its relative paths absolute. Raises `UserError`."""
    spec = CompositionSpec.from_json(read_json(path))
    base = path.resolve().parent
    return replace(
        spec,
        model=replace(spec.model, path=str(base / spec.model.path)),
        adapters=[replace(part, path=str(base / part.path)) for part in spec.adapters],
        data=spec.data.below(base) if spec.data else None,
    )
