"""Three methods with settings for a run, ranked by what is wished for, each with its estimate and its reason. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.device import Device
from jobs.errors import UserError
from jobs.methods.registry import get_method
from jobs.planning.advice import Reduction, ask_for_less
from jobs.planning.batches import RowLengths
from jobs.planning.calibration import Calibration
from jobs.planning.estimate import USABLE_SHARE, Estimate, count_steps, estimate
from jobs.planning.outcomes import Outcome, Timing, own_timing
from jobs.planning.rules import RULES, Facts, Wish, settings_of, training_of
from jobs.planning.shape import ModelShape
from jobs.spec import MethodSpec, RunSpec, TrainingSpec

RECOMMENDATIONS = 3
# Data is alike where one set of rows is at most so many times the other.
ALIKE = 4.0
OWN_RUNS = "your team's own runs"


@dataclass(frozen=True)
class Recommendation:
    """A method to take: the whole `spec` to launch, why in a sentence and by what `source`, and what it would take.

    `changes` are what had to be asked for less for it to fit; `estimate.fits` says whether it then does. `timing` is None where no time is
    known.
    """

    spec: RunSpec
    reason: str
    source: str
    estimate: Estimate
    changes: tuple[str, ...]
    timing: Timing | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: method and training apart, and the estimate's own JSON."""
        return {
            "method": asdict(self.spec.method),
            "training": asdict(self.spec.training),
            "reason": self.reason,
            "source": self.source,
            "changes": list(self.changes),
            "estimate": self.estimate.to_json(),
            "timing": self.timing and asdict(self.timing),
        }


@dataclass(frozen=True)
class Situation:
    """What a recommendation starts from: a spec (its model, rows and training are kept, its method is not looked at), the workers' device,
    what is known of model and rows, the team's own finished runs, and the methods that do not come into question here. `keep_engine`: the
    spec's `engine` is not to be changed.
    """

    spec: RunSpec
    device: Device
    shape: ModelShape
    lengths: RowLengths
    calibration: Calibration | None = None
    languages: tuple[str, ...] = ()
    past: tuple[Outcome, ...] = ()
    without: frozenset[str] = frozenset()
    keep_engine: bool = False

    @property
    def facts(self) -> Facts:
        """What the rules look at."""
        rows = self.lengths.cut(self.spec.training.max_length or self.lengths.natural_length())
        trained = rows.rows * rows.mean * rows.label_share
        return Facts(rows.rows, trained, count_steps(self.spec, rows), self.shape.total_parameters, self.languages)

    def estimate(self, spec: RunSpec) -> Estimate:
        """That of a spec on the device. Raises `UserError`."""
        return estimate(spec, self.device, self.shape, self.lengths, calibration=self.calibration)

    def timing(self, spec: RunSpec, found: Estimate) -> Timing | None:
        """The time of `spec`, whose estimate is `found`: where the device was calibrated by that, else by own runs."""
        if found.speed and found.seconds is not None:
            return Timing(found.seconds, found.speed.basis)
        training = spec.training
        rows = self.lengths.cut(training.max_length or self.lengths.natural_length())
        tokens = found.steps * min(rows.rows, training.micro_batch * training.gradient_accumulation) * rows.mean
        return own_timing(self.past, method=spec.method.id, base=spec.model.name, device=self.device["name"], tokens=tokens)

    def less(self, spec: RunSpec, *, same_result: bool = False) -> tuple[Reduction, ...]:
        """What to change in a spec until it fits the device; a maximum length that is left to the data counts as what the data gives, and
        stays so unless it is shortened.
        """
        longest = spec.training.max_length or self.lengths.natural_length()
        named = replace(spec, training=replace(spec.training, max_length=longest))
        usable = USABLE_SHARE * self.device["memory_bytes"]
        steps = ask_for_less(
            named, usable, lambda changed: self.estimate(changed).memory.peak, same_result=same_result, keep_engine=self.keep_engine
        )
        return tuple(replace(step, spec=_as_named(step.spec, longest, spec.training.max_length)) for step in steps)


def _as_named(spec: RunSpec, longest: int, named: int | None) -> RunSpec:
    """The spec with the maximum length as it was named, where that is `longest` still."""
    return replace(spec, training=replace(spec.training, max_length=named)) if spec.training.max_length == longest else spec


def recommend(situation: Situation, wish: Wish) -> list[Recommendation]:
    """At most three, the best first: those that fit, then in each case the team's own runs before the rules, ordered as `wish` says.

    `quality`: by what own runs gained, by the rules' order. `memory`: by the peak, measured in own runs, else estimated. `speed`: by the
    time, likewise; by the rules' order where that of one of them is not known. A method that made matters worse in all own runs alike
    comes last of the rules.
    """
    alike = [run for run in situation.past if _is_alike(run, situation)]
    failed = {run.method for run in alike} - {run.method for run in alike if run.gain > 0}
    found = [*_from_runs(situation, wish, alike), *_from_rules(situation, wish, failed)]
    chosen: list[Recommendation] = []
    for one in sorted(found, key=lambda one: not one.estimate.fits):  # stable: the order within both stays
        if all(one.spec.method.id != other.spec.method.id for other in chosen):
            chosen.append(one)
    return chosen[:RECOMMENDATIONS]


def _is_alike(run: Outcome, situation: Situation) -> bool:
    rows = situation.lengths.rows
    same = run.base == situation.spec.model.name and run.task == situation.spec.task
    return same and max(run.rows, rows) <= ALIKE * min(run.rows, rows)


def _from_runs(situation: Situation, wish: Wish, alike: Sequence[Outcome]) -> Iterator[Recommendation]:
    """What helped before, the best first."""
    orders: dict[Wish, Callable[[Outcome], float]] = {
        "quality": lambda run: -run.gain,
        "memory": lambda run: run.peak_bytes,
        "speed": lambda run: run.seconds / run.rows,
    }
    for run in sorted((run for run in alike if run.gain > 0), key=orders[wish]):
        reason = (
            f"Your run “{run.name}” on this base and {run.rows:,} rows took {100 * run.gain:.0f} % of the loss away, "
            f"in {_time(run.seconds)} and {run.peak_bytes / 2**30:.1f} GiB."
        )
        try:
            spec = _spec(situation.spec, run.method, run.settings, run.training)
            # which finished adapters a method is to build on, only the user knows
            if run.method in situation.without or get_method(run.method).capabilities.adapters:
                continue
            yield _fitted(situation, spec, reason, OWN_RUNS)
        except UserError:  # a method or setting of then that is no more, or not for this device
            continue


def _from_rules(situation: Situation, wish: Wish, failed: set[str]) -> list[Recommendation]:
    """Those of the rules that hold, in the order of the wish."""
    facts = situation.facts
    found: list[tuple[int, Recommendation]] = []
    for rule in RULES:
        if wish not in rule.wishes or not rule.holds(facts) or not _comes_into_question(situation, rule.method):
            continue
        spec = _spec(situation.spec, rule.method, settings_of(rule, facts), training_of(rule, facts))
        if wish == "memory":
            spec = _lean(spec)
        reason = rule.tells.format(rows=f"{facts.rows:,}", tokens=f"{facts.trained_tokens:,.0f}")
        try:
            found.append((rule.quality, _fitted(situation, spec, reason, rule.source)))
        except UserError:  # not for this device
            continue
    by_time = all(one.timing for _, one in found)

    def place(quality: int, one: Recommendation) -> tuple[bool, float]:
        cost: float = -quality
        if wish == "memory":
            cost = one.estimate.memory.peak
        elif wish == "speed" and by_time and one.timing:
            cost = one.timing.seconds
        return one.spec.method.id in failed, cost

    return [one for _, one in sorted(found, key=lambda pair: place(*pair))]


def _comes_into_question(situation: Situation, method: str) -> bool:
    return method not in situation.without and situation.spec.task in get_method(method).capabilities.tasks


def _spec(base: RunSpec, method: str, settings: Mapping[str, Any], training: Mapping[str, Any]) -> RunSpec:
    """Raises `UserError` where the method does not know a setting."""
    get_method(method).resolve(dict(settings))
    known = {name: value for name, value in training.items() if name in TrainingSpec.__dataclass_fields__}
    return replace(base, method=MethodSpec(method, dict(settings)), training=replace(base.training, **known))


def _lean(spec: RunSpec) -> RunSpec:
    """The same rows a step, one at a time, with activations computed again."""
    training, checkpoints = spec.training, get_method(spec.method.id).capabilities.checkpointing
    batch = training.micro_batch * training.gradient_accumulation
    return replace(spec, training=replace(training, micro_batch=1, gradient_accumulation=batch, gradient_checkpointing=checkpoints))


def _fitted(situation: Situation, spec: RunSpec, reason: str, source: str) -> Recommendation:
    """With what has to be asked for less, as far as that leaves the result as it is."""
    found = situation.estimate(spec)
    steps = () if found.fits else situation.less(spec, same_result=True)
    if steps:
        spec = steps[-1].spec
        found = situation.estimate(spec)
    return Recommendation(spec, reason, source, found, tuple(step.change for step in steps), situation.timing(spec, found))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
