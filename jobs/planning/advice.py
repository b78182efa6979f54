"""What to change in a run that does not fit in memory. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from jobs.errors import UserError
from jobs.spec import MethodSpec, RunSpec

# Methods in the order of their need of memory, and what the settings of one make of the other's.
_LEANER = {"full": "lora", "lora": "qlora"}


@dataclass(frozen=True)
class Advice:
    """One change by itself: in words, the bytes that it saves at the peak, and whether the run then fits."""

    change: str
    saves_bytes: int
    fits: bool


def advise(spec: RunSpec, peak: int, usable: float, peak_of: Callable[[RunSpec], int]) -> tuple[Advice, ...]:
    """Each change that saves memory, the largest effect first. `peak_of` gives the peak of a changed spec, `usable` is in bytes."""
    found: list[Advice] = []
    for words, changed in _changes(spec):
        try:
            after = peak_of(changed)
        except UserError:  # a change that this device does not allow is no advice
            continue
        if after < peak:
            found.append(Advice(words, peak - after, after <= usable))
    return tuple(sorted(found, key=lambda advice: -advice.saves_bytes))


def _changes(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    training = spec.training
    if training.micro_batch > 1:
        half = training.micro_batch // 2
        words = f"Halve the micro-batch to {half} and double the accumulation to {2 * training.gradient_accumulation}: the same result."
        yield words, replace(spec, training=replace(training, micro_batch=half, gradient_accumulation=2 * training.gradient_accumulation))
    if not training.gradient_checkpointing:
        yield (
            "Switch gradient checkpointing on: the same result, about a third slower.",
            replace(spec, training=replace(training, gradient_checkpointing=True)),
        )
    if training.max_length and training.max_length > 16:
        half = training.max_length // 2
        words = f"Shorten the maximum length to {half} tokens: longer rows are cut there."
        yield words, replace(spec, training=replace(training, max_length=half))
    if spec.method.id in _LEANER:
        method = _LEANER[spec.method.id]
        settings = {} if spec.method.id == "full" else spec.method.settings
        yield f"Use {method} in place of {spec.method.id}.", replace(spec, method=MethodSpec(method, dict(settings)))
    if training.optimiser == "adamw":
        words = "Use the 8-bit optimiser (adamw_8bit): a quarter of the optimiser's state."
        yield words, replace(spec, training=replace(training, optimiser="adamw_8bit"))
    if spec.engine.packed_weights:
        yield (
            "Switch engine.packed_weights off: slower in float32 on a CPU, without the second copy of the weights.",
            replace(spec, engine=replace(spec.engine, packed_weights=False)),
        )
