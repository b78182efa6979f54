"""RunSpec: everything that a run depends on, as frozen dataclasses to and from JSON.

The same spec, data and seed give the same loss curve. A relative path in a spec file is relative to that file's folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from jobs.errors import UserError

VERSION = 1

Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "classification", "text",
    "sequence_classification", "regression", "question_answering", "multiple_choice",
]  # fmt: skip
Task = Literal["causal_lm", "sequence_classification", "regression", "question_answering", "multiple_choice", "seq2seq_lm"]
TASKS: tuple[Task, ...] = get_args(Task)
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Batching = Literal["auto", "packed", "padded"]
Optimiser = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]
Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts"]
FinalWeights = Literal["last", "best"]
LossOn = Literal["completion", "all"]
Merge = Literal["none", "original", "dequantised", "both"]
StoredDtype = Literal["base", "float32"]

# What a column of a database holds, with room.
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0, lt=1)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelSpec:
    """The base model: a folder of safetensors with config and tokenizer, and what the model card says of its origin."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    path: str
    name: str = ""
    revision: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Mapping:
    """How the columns of a file become rows: `columns` gives, for each field of the format, the name of a column.

    Fields by format: `messages`: messages; `sharegpt`: conversations, from, value; `alpaca`: instruction, input, output, (system);
    `prompt_completion`: prompt, completion; `classification`: text, label; `text`: text. `messages` and `prompt_completion` may have
    `choices`: a list of answers, the expected one among them, to be told apart by likelihood in an evaluation.
    Of tasks other than `causal_lm`: `sequence_classification`: text, label, (text_b); `regression`: text, number, (text_b);
    `question_answering`: question, context, answers; `multiple_choice`: question, choices, answer, (context).
    `instruction` is put before the text of a classification row (and is the system message of the others where they have none).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: Format
    columns: dict[str, str] = field(default_factory=dict)
    instruction: str = ""


@dataclass(frozen=True)
class DataSpec:
    """The rows. Without a mapping it is recognised from the training file; without a validation file, `validation_share`
    of the training rows is set aside, chosen by the seed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    train: str
    validation: str | None = None
    test: str | None = None
    mapping: Mapping | None = None
    validation_share: Share = 0.05
    skip_bad_rows: bool = False

    def below(self, base: Path) -> DataSpec:
        """The same with paths made absolute; a relative one is relative to `base`."""
        validation, test = (None if name is None else str(base / name) for name in (self.validation, self.test))
        return replace(self, train=str(base / self.train), validation=validation, test=test)


@dataclass(frozen=True)
class MethodSpec:
    """A method of the catalogue by id, with those of its settings that differ from the defaults.

    `adapters` are the folders of finished adapters that it builds on, as AdapterFusion and X-LoRA do.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    id: str = "lora"
    settings: dict[str, bool | int | float | str | dict[str, int]] = field(default_factory=dict)
    adapters: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingSpec:
    """The loop. Null means: the method's own default (learning rate) or a figure derived from the data (lengths, intervals).

    `warmup_share` is a share of all steps; `clip_norm` 0 switches clipping off; `max_length` is in tokens. `schedule_cycles` is of
    `cosine_with_restarts`. `micro_batch_tokens` cuts a step's rows into micro-batches of at most so many tokens in place of `micro_batch`
    rows (the step keeps its `micro_batch` x `gradient_accumulation` rows). `early_stopping_evaluations` ends the training once the
    validation loss has not fallen for so many evaluations; `final_weights` `best` goes on with those of the lowest validation loss.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    max_steps: PositiveInt | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    optimiser: Optimiser = "adamw"
    schedule: Schedule = "cosine"
    schedule_cycles: Annotated[int, Field(ge=1, le=100)] = 1
    warmup_share: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    micro_batch: Annotated[int, Field(ge=1, le=4096)] = 8
    gradient_accumulation: Annotated[int, Field(ge=1, le=4096)] = 2
    micro_batch_tokens: Annotated[int, Field(ge=16, le=16_777_216)] | None = None
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    loss_on: LossOn = "completion"
    precision: Precision = "auto"
    batching: Batching = "auto"
    gradient_checkpointing: bool = False
    checkpoint_every_steps: PositiveInt | None = None
    evaluate_every_steps: PositiveInt | None = None
    early_stopping_evaluations: PositiveInt | None = None
    final_weights: FinalWeights = "last"


@dataclass(frozen=True)
class EngineSpec:
    """The engine's fast ways. Each gives what the plain way gives, but for the rounding of the arithmetic, and can be switched off; where
    the model or the device does not allow one, the plain way is taken. (Packing is `training.batching`.)

    `segment_attention`: short rows by our own attention, forward and backward, in place of torch's; on a GPU all rows in one call of
    FlashAttention or flex_attention. `shared_prefix`: what all rows of a micro-batch begin with is computed once. `label_head`: logits at
    label positions alone, tile by tile. `one_gemm_lora`: base and LoRA update in one matrix product, layers that read the same input
    together. `compile`: elementwise regions by inductor. `flat_optimiser`: all trained weights updated as one (on a CPU, where they
    are few). `packed_weights`: frozen float32 weights in oneDNN's layout (CPU; a second copy of them). `prefetch`: batches made ahead in a
    thread, where a GPU computes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    segment_attention: bool = True
    shared_prefix: bool = True
    label_head: bool = True
    one_gemm_lora: bool = True
    compile: bool = True
    flat_optimiser: bool = True
    packed_weights: bool = True
    prefetch: bool = True


@dataclass(frozen=True)
class EvaluationSpec:
    """What is measured on the held-out rows at the end (the test file, else the validation rows), for base and tuned model.

    `retention`: besides, what both make of Graft's general probe, so that forgetting is a number.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    generate: bool = True
    rows: PositiveInt = 200
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 64
    samples: Annotated[int, Field(ge=0, le=20)] = 5
    retention: bool = True


@dataclass(frozen=True)
class ExportSpec:
    """What is left behind for download. `dequantised` merges into the dequantised 4-bit base, faithful to what was trained;
    `original` into the 16-bit base, and the merged model is evaluated again. Merged and fully trained weights are stored in `dtype`:
    `base`, as the base model's own files, which where those are 16-bit rounds a part of small updates away; `float32`, exact and twice
    as large.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    merge: Merge = "original"
    dtype: StoredDtype = "base"
    shard_bytes: Annotated[int, Field(ge=1_000_000)] = 2_000_000_000


@dataclass(frozen=True)
class RunSpec:
    """One run, whole. `task` is what the model is trained for: to write on (`causal_lm`), or one of the others of `TASKS`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    model: ModelSpec
    data: DataSpec
    task: Task = "causal_lm"
    method: MethodSpec = field(default_factory=MethodSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    name: str = ""
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object; `RunSpec.from_json` gives an equal spec back."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Any) -> RunSpec:
        """Reads a JSON object. Raises `UserError` that names the first field at fault."""
        if isinstance(body, dict) and body.get("version", VERSION) != VERSION:
            raise UserError("spec_version", found=body["version"], expected=VERSION)
        spec = read_strictly(_ADAPTER, body)
        require_validation(spec.training, present=spec.data.validation is not None or spec.data.validation_share > 0)
        return spec


# Strict JSON mode: an object becomes a dataclass, but "3" is no number.
_ADAPTER: TypeAdapter[RunSpec] = TypeAdapter(RunSpec)


def read_strictly(adapter: TypeAdapter[_T], body: Any) -> _T:
    """What `adapter` makes of a JSON value. Raises `UserError` that names the first field at fault."""
    try:
        return adapter.validate_json(json.dumps(body), strict=True)
    except ValidationError as failure:
        raise _user_error(failure, adapter) from None


def require_validation(training: TrainingSpec, *, present: bool) -> None:
    """Raises `UserError("validation_needed")` where the training is to be steered by validation rows and there are none."""
    stops_early, takes_best = training.early_stopping_evaluations is not None, training.final_weights == "best"
    for name, wanted in (("early_stopping_evaluations", stops_early), ("final_weights", takes_best)):
        if wanted and not present:
            raise UserError("validation_needed", field=f"training.{name}", where={"field": f"training.{name}"})


def load_spec(path: Path) -> RunSpec:
    """Reads a spec file and makes its relative paths absolute. Raises `UserError`."""
    spec = RunSpec.from_json(read_json(path))
    base = path.resolve().parent
    method = replace(spec.method, adapters=[str(base / adapter) for adapter in spec.method.adapters])
    return replace(spec, model=replace(spec.model, path=str(base / spec.model.path)), data=spec.data.below(base), method=method)


def write_spec(spec: Any, out: Path) -> None:
    """Leaves a resolved spec, of any kind that has `to_json`, beside the events."""
    (out / "spec.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a spec file holds. Raises `UserError` where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("file_missing", path=path) from None
    except (ValueError, RecursionError) as failure:
        raise UserError("spec_not_json", reason=failure, where={"file": str(path)}) from None


def _user_error(failure: ValidationError, adapter: TypeAdapter[Any]) -> UserError:
    first = failure.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "spec"
    where = {"field": name}
    if first["type"] == "unexpected_keyword_argument" or first["type"] == "extra_forbidden":
        return UserError("spec_unknown_field", field=name, known=", ".join(_known_fields(adapter, first["loc"][:-1])), where=where)
    if first["type"] in ("missing", "missing_argument"):
        return UserError("spec_missing_field", field=name, where=where)
    reason = first["msg"][0].lower() + first["msg"][1:]
    return UserError("spec_bad_value", field=name, value=repr(first["input"])[:80], reason=reason, where=where)


def _known_fields(adapter: TypeAdapter[Any], place: tuple[int | str, ...]) -> list[str]:
    schema: Any = adapter.json_schema()
    definitions = schema.get("$defs", {})
    for part in place:
        schema = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
        for option in (schema, *schema.get("anyOf", ())):
            if "$ref" in option:
                schema = definitions[option["$ref"].rsplit("/", 1)[-1]]
    return sorted(schema.get("properties", {}))
