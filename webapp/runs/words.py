"""The settings of a run in words: the section of the form that each stands in, its label, its help. Types and bounds are in `jobs.spec`."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _

from jobs.spec import DataSpec, EvaluationSpec, ExportSpec, RunSpec, TrainingSpec


class Words(NamedTuple):
    """How one field of the spec is shown: the section of the form it stands in, its label, its help."""

    spec: type[Any]
    path: str
    section: str
    label: Any
    help: Any
    choices: dict[str, Any] = {}


FIELDS = (
    Words(
        TrainingSpec, "training.epochs", "training", _("Epochs"),
        _("How often each row is seen. 1 to 3 is usual; 1 from about 50,000 rows on. Part epochs such as 0.5 are allowed."),
    ),
    Words(
        TrainingSpec, "training.learning_rate", "training", _("Learning rate"),
        _("The size of a step. Empty: the method's own default; a low-rank adapter wants about ten times that of full fine-tuning."),
    ),
    Words(
        TrainingSpec, "training.micro_batch", "training", _("Micro-batch"),
        _("Rows in memory at once. Halve it when memory runs out, and double the accumulation to keep the result."),
    ),
    Words(
        TrainingSpec, "training.gradient_accumulation", "training", _("Gradient accumulation"),
        _("Micro-batches summed into one step. Micro-batch × accumulation is the effective batch; 16 is usual."),
    ),
    Words(
        TrainingSpec, "training.schedule", "training", _("Schedule"),
        _("How the learning rate moves after the warm-up."),
        {
            "cosine": _("Cosine, down to zero"),
            "linear": _("Linear, down to zero"),
            "constant": _("Constant"),
            "cosine_with_restarts": _("Cosine with restarts"),
        },
    ),
    Words(
        TrainingSpec, "training.warmup_share", "training", _("Warm-up"),
        _("Share of all steps in which the rate rises from zero: 0.03 is three per cent. 0 to 0.1 is usual."),
    ),
    Words(
        TrainingSpec, "training.max_length", "training", _("Maximum length"),
        _("In tokens; longer rows are cut. Empty: taken from the data, up to what the model can read."),
    ),
    Words(
        TrainingSpec, "training.precision", "training", _("Precision"),
        _("Of the frozen weights and the arithmetic."),
        {
            "auto": _("Automatic: what the device does best"),
            "bfloat16": "bfloat16",
            "float32": "float32",
            "float16": _("float16: for GPUs without bfloat16"),
        },
    ),
    Words(
        TrainingSpec, "training.early_stopping_evaluations", "training", _("Stop early after … validations without gain"),
        _("Ends the training once the validation loss has not fallen so many times. Empty: all steps. 2 or 3 is usual."),
    ),
    Words(
        TrainingSpec, "training.final_weights", "training", _("Weights to keep"),
        _("The best are those of the lowest validation loss: a checkpoint is written whenever it falls."),
        {"last": _("Those of the last step"), "best": _("The best")},
    ),
    Words(
        DataSpec, "data.validation_share", "data", _("Validation share"),
        _("Share of the training rows set aside to measure the loss on, where the dataset has no validation rows of its own."),
    ),
    Words(
        EvaluationSpec, "evaluation.generate", "evaluation", _("Compare answers of base and tuned model"),
        _("At the end both models answer held-out rows; exact matches are counted. Without it only the losses are compared. "
          "Of tasks that write; others always answer every row."),
    ),
    Words(EvaluationSpec, "evaluation.rows", "evaluation", _("Rows to answer"), _("At most so many held-out rows, for each model.")),
    Words(
        EvaluationSpec, "evaluation.max_new_tokens", "evaluation", _("Longest answer"),
        _("In tokens. As long as your longest expected answer; shorter is faster."),
    ),
    Words(EvaluationSpec, "evaluation.samples", "evaluation", _("Samples to show"), _("Answers shown side by side on the run's page.")),
    Words(
        EvaluationSpec, "evaluation.retention", "evaluation", _("Measure forgetting"),
        _("Both models are measured on sixty short general texts, so that the run's page says what was lost. Takes seconds. "
          "Of models that write on, not of other tasks."),
    ),
    Words(
        ExportSpec, "export.merge", "export", _("Merged model"),
        _("The adapter is always kept. A merged model loads without PEFT and is measured again where its weights differ."),
        {
            "original": _("Into the original 16-bit weights: the usual choice, re-evaluated"),
            "dequantised": _("Into the dequantised 4-bit weights: faithful to what was trained (QLoRA)"),
            "both": _("Both"),
            "none": _("None: the adapter alone"),
        },
    ),
    Words(
        ExportSpec, "export.dtype", "export", _("Stored as"),
        _("How the weights of a merged or fully fine-tuned model are written. An adapter is not affected."),
        {
            "base": _("The base model's number type, usually 16-bit: half the size, rounds small updates away"),
            "float32": _("float32: exactly what was trained, twice the size"),
        },
    ),
    Words(
        TrainingSpec, "training.loss_on", "advanced", _("Learn from"),
        _("The answers, or every token of a row (for plain text)."),
        {"completion": _("The answers only"), "all": _("Every token")},
    ),
    Words(
        TrainingSpec, "training.batching", "advanced", _("Batching"),
        _("Packed puts several short rows into one sequence without letting them see each other; it wastes no memory on padding."),
        {"auto": _("Automatic"), "packed": _("Packed"), "padded": _("Padded")},
    ),
    Words(
        TrainingSpec, "training.micro_batch_tokens", "advanced", _("Micro-batch in tokens"),
        _("At most so many tokens in memory at once, in place of a number of rows; a step keeps its rows. Empty: by rows."),
    ),
    Words(
        TrainingSpec, "training.optimiser", "advanced", _("Optimiser"),
        _("AdamW is exact. In 8 bits its state takes a quarter of the memory, with Adafactor next to none."),
        {
            "adamw": "AdamW",
            "adamw_8bit": _("AdamW, 8-bit state"),
            "paged_adamw": _("AdamW, state paged to the host's memory (GPU)"),
            "paged_adamw_8bit": _("AdamW, 8-bit state paged to the host's memory (GPU)"),
            "adafactor": "Adafactor",
        },
    ),
    Words(
        TrainingSpec, "training.schedule_cycles", "advanced", _("Restarts: number of cycles"),
        _("How often the rate falls from its peak to zero, where the schedule is cosine with restarts."),
    ),
    Words(TrainingSpec, "training.weight_decay", "advanced", _("Weight decay"), _("Pull of the trained weights towards zero. 0 to 0.1.")),
    Words(TrainingSpec, "training.clip_norm", "advanced", _("Gradient clipping"), _("Largest norm of the gradient; 0 switches it off.")),
    Words(TrainingSpec, "training.max_steps", "advanced", _("Maximum steps"), _("Ends the training early. Empty: all epochs.")),
    Words(
        TrainingSpec, "training.evaluate_every_steps", "advanced", _("Validate every … steps"), _("Empty: chosen from the steps."),
    ),
    Words(
        TrainingSpec, "training.checkpoint_every_steps", "advanced", _("Checkpoint every … steps"),
        _("What a pause or a fault can lose at most. Empty: chosen from the steps."),
    ),
    Words(
        TrainingSpec, "training.gradient_checkpointing", "advanced", _("Recompute activations"),
        _("Gradient checkpointing: much less memory, about a third slower."),
    ),
    Words(RunSpec, "seed", "advanced", _("Seed"), _("The same data, settings and seed give the same loss curve.")),
)  # fmt: skip
