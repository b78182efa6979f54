"""What to change in a run that does not fit in memory. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.spec import MethodSpec, RunSpec

PeakOf = Callable[[RunSpec], int]

# Methods in the order of their need of memory; the settings of one are taken over by the other where it has them.
_LEANER = {"full": ("lora",), "lora": ("lora_8bit", "qlora"), "lora_8bit": ("qlora",)}
# A change that is taken together with others must save so much of the peak: else it costs something for nothing.
_WORTH = 0.01
# Lower than these, a run is another task rather than the same one in less memory.
_LEAST_RANK, _LEAST_LENGTH = 8, 128


@dataclass(frozen=True)
class Advice:
    """One change by itself: in words, the bytes that it saves at the peak, and whether the run then fits."""

    change: str
    saves_bytes: int
    fits: bool


@dataclass(frozen=True)
class Reduction:
    """One change of several: in words, the `spec` and its peak in bytes with this and all before it, and whether that fits."""

    change: str
    spec: RunSpec
    peak: int
    fits: bool


def advise(spec: RunSpec, peak: int, usable: float, peak_of: PeakOf) -> tuple[Advice, ...]:
    """Each change that saves memory, the largest effect first. `peak_of` gives the peak of a changed spec, `usable` is in bytes."""
    found = []
    for words, changed in _changes(spec):
        after = _peak(changed, peak_of)
        if after is not None and after < peak:
            found.append(Advice(words, peak - after, after <= usable))
    return tuple(sorted(found, key=lambda advice: -advice.saves_bytes))


def ask_for_less(
    spec: RunSpec, usable: float, peak_of: PeakOf, *, same_result: bool = False, keep_engine: bool = False
) -> tuple[Reduction, ...]:
    """Changes to be made together, in their order, until the run fits; none where it fits as it is. The peak falls with each of them.

    What leaves the result as it is comes first (`same_result`: nothing else is taken), then what costs least of it; shortening the rows
    comes last, since that loses data. Where nothing more helps, the last of them does not fit either. `keep_engine`: the spec's `engine`
    is not to be changed.
    """
    found: list[Reduction] = []
    peak = peak_of(spec)
    while peak > usable:
        changes = [*_same_result(spec)] if same_result else [*_changes(spec)]
        better = _first_worth([one for one in changes if not keep_engine or one[1].engine == spec.engine], peak, peak_of)
        if better is None:
            break
        words, spec, peak = better
        found.append(Reduction(words, spec, peak, peak <= usable))
    return tuple(found)


def _first_worth(changes: Iterable[tuple[str, RunSpec]], peak: int, peak_of: PeakOf) -> tuple[str, RunSpec, int] | None:
    for words, changed in changes:
        after = _peak(changed, peak_of)
        if after is not None and after < peak * (1 - _WORTH):
            return words, changed, after
    return None


def _peak(changed: RunSpec, peak_of: PeakOf) -> int | None:
    """None for a change that this device or method does not allow, which is no advice."""
    try:
        return peak_of(changed)
    except UserError:
        return None


def _changes(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    yield from _same_result(spec)
    yield from _other_method(spec)
    training = spec.training
    if training.max_length and training.max_length >= 2 * _LEAST_LENGTH:
        half = training.max_length // 2
        words = f"Shorten the maximum length to {half} tokens: longer rows are cut there."
        yield words, replace(spec, training=replace(training, max_length=half))


def _same_result(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    """What changes memory and time, and the result by rounding alone."""
    training = spec.training
    if training.micro_batch > 1:
        batch = training.micro_batch * training.gradient_accumulation
        smaller = next(size for size in range(training.micro_batch // 2, 0, -1) if batch % size == 0)
        words = f"Lower the micro-batch to {smaller} and raise the accumulation to {batch // smaller}: the same result."
        yield words, replace(spec, training=replace(training, micro_batch=smaller, gradient_accumulation=batch // smaller))
    if not training.gradient_checkpointing:
        yield (
            "Switch gradient checkpointing on: the same result, about a third slower.",
            replace(spec, training=replace(training, gradient_checkpointing=True)),
        )
    if spec.engine.packed_weights:
        yield (
            "Switch engine.packed_weights off: slower in float32 on a CPU, without the second copy of the weights.",
            replace(spec, engine=replace(spec.engine, packed_weights=False)),
        )
    if training.optimiser == "adamw":
        words = "Use the 8-bit optimiser (adamw_8bit): a quarter of the optimiser's state."
        yield words, replace(spec, training=replace(training, optimiser="adamw_8bit"))


def _other_method(spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
    """A leaner method, or less rank."""
    given = spec.method.settings
    for leaner in _LEANER.get(spec.method.id, ()):
        kept = {setting.name: given[setting.name] for setting in get_method(leaner).settings if setting.name in given}
        # a rate that was chosen for all weights is far too low for an adapter
        training = replace(spec.training, learning_rate=None) if spec.method.id == "full" else spec.training
        yield f"Use {leaner} in place of {spec.method.id}.", replace(spec, method=MethodSpec(leaner, kept), training=training)
    ranked = next((setting for setting in get_method(spec.method.id).settings if setting.name == "rank"), None)
    rank = given.get("rank", ranked.default) if ranked else 0
    if isinstance(rank, int) and rank >= 2 * _LEAST_RANK:
        words = f"Halve the rank to {rank // 2}: less can be learnt."
        yield words, replace(spec, method=replace(spec.method, settings={**given, "rank": rank // 2}))
