"""From a job's `method` and `hyperparameters` to the parts of a recipe, and back.

OpenAI's own are `n_epochs`, `batch_size` (rows of an optimiser step) and `learning_rate_multiplier` (of the method's default rate). Beside
them stand ours: `method` (an id of the catalogue), the method's settings and the fields of `training` by their names, and the objects
`training`, `evaluation` and `export` of a run spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from pydantic import TypeAdapter

from jobs.errors import UserError
from jobs.methods.entry import Method
from jobs.methods.registry import METHODS, get_method
from jobs.spec import EvaluationSpec, ExportSpec, RunSpec, TrainingSpec, read_strictly
from webapp.api.errors import ApiError

DEFAULT_METHOD = "lora"
AUTO = "auto"
GROUPS: dict[str, type[Any]] = {"training": TrainingSpec, "evaluation": EvaluationSpec, "export": ExportSpec}
_OWN = ("n_epochs", "batch_size", "learning_rate_multiplier")
_TRAINING = frozenset(each.name for each in fields(TrainingSpec))
# OpenAI's bounds.
_MOST_EPOCHS, _MOST_ROWS = 50, 256


@dataclass(frozen=True)
class Wanted:
    """The parts of `webapp.runs.services.specs.Recipe` that a job's hyperparameters say."""

    method: str = DEFAULT_METHOD
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As `Job.hyperparameters` keeps it."""
        return asdict(self)


def read(given: Mapping[str, Any], param: str) -> Wanted:
    """What the hyperparameters mean; `param` is the place in the request that a refusal names. Raises `ApiError` 400."""
    entry = _method(given.get("method", DEFAULT_METHOD), f"{param}.method")
    parts: dict[str, dict[str, Any]] = {"settings": {}, **{name: _group(given.get(name), f"{param}.{name}") for name in GROUPS}}
    settings = {setting.name for setting in entry.settings}
    for name, value in given.items():
        if name == "method" or name in GROUPS or (name in _OWN and value == AUTO):
            continue
        if name in _OWN:
            parts["training"] |= _own(name, value, entry, f"{param}.{name}")
        elif name in settings:
            parts["settings"][name] = value
        elif name in _TRAINING:
            parts["training"][name] = value
        else:
            raise _unknown(name, entry, settings, param)
    _check(entry, parts, param)
    return Wanted(method=entry.id, **parts)


def shown(spec: RunSpec) -> dict[str, Any]:
    """The hyperparameters of a run as a job says them: OpenAI's, then the method and its settings."""
    training, entry = spec.training, get_method(spec.method.id)
    epochs = training.epochs
    return {
        "n_epochs": int(epochs) if float(epochs).is_integer() else epochs,
        "batch_size": training.micro_batch * training.gradient_accumulation,
        "learning_rate_multiplier": round((training.learning_rate or entry.learning_rate) / entry.learning_rate, 6),
        "method": spec.method.id,
        **spec.method.settings,
    }


def shown_of_wanted(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a job that has no run yet; what was not said is `auto`."""
    training, rate = wanted["training"], get_method(wanted["method"]).learning_rate
    rows = training.get("micro_batch"), training.get("gradient_accumulation")
    return {
        "n_epochs": training.get("epochs", AUTO),
        "batch_size": rows[0] * rows[1] if rows[0] and rows[1] else AUTO,
        "learning_rate_multiplier": round(training["learning_rate"] / rate, 6) if training.get("learning_rate") else AUTO,
        "method": wanted["method"],
        **wanted["settings"],
    }


def _method(given: Any, param: str) -> Method:
    if isinstance(given, str) and given in METHODS:
        return get_method(given)
    near = get_close_matches(str(given), METHODS, 3)
    words = f" Did you mean {' or '.join(repr(each) for each in near)}?" if near else f" Known: {', '.join(sorted(METHODS))}."
    raise ApiError(400, f"{str(given)[:100]!r} is no method.{words}", code="invalid_value", param=param)


def _group(given: Any, param: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ApiError(400, f"'{param}' must be an object.", code="invalid_type", param=param)
    return dict(given)


def _own(name: str, value: Any, entry: Method, param: str) -> dict[str, Any]:
    """One of OpenAI's three, as fields of `training`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "n_epochs":
        if not whole or not 1 <= value <= _MOST_EPOCHS:
            raise _bad(param, f"'auto' or a whole number from 1 to {_MOST_EPOCHS}")
        return {"epochs": float(value)}
    if name == "batch_size":
        if not whole or not 1 <= value <= _MOST_ROWS:
            raise _bad(param, f"'auto' or a whole number from 1 to {_MOST_ROWS}")
        micro = next(rows for rows in range(min(value, TrainingSpec().micro_batch), 0, -1) if value % rows == 0)
        return {"micro_batch": micro, "gradient_accumulation": value // micro}
    # Compared as it came: an integer of hundreds of digits is no float.
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 10 / entry.learning_rate:
        raise _bad(param, "'auto' or a number above 0")
    return {"learning_rate": value * entry.learning_rate}


def _bad(param: str, wanted: str) -> ApiError:
    return ApiError(400, f"'{param}' must be {wanted}.", code="invalid_value", param=param)


def _unknown(name: str, entry: Method, settings: set[str], param: str) -> ApiError:
    known = sorted({*_OWN, "method", *settings, *_TRAINING, *GROUPS})
    near = get_close_matches(name, known, 3)
    words = f"Did you mean {' or '.join(near)}?" if near else f"Known for {entry.id}: {', '.join(known)}."
    return ApiError(400, f"Unknown hyperparameter: '{name[:100]}'. {words}", code="unknown_parameter", param=f"{param}.{name[:100]}")


def _check(entry: Method, parts: dict[str, dict[str, Any]], param: str) -> None:
    """Refuses now what would be refused when the run is made: the caller is still there to hear it."""
    try:
        entry.resolve(parts["settings"])
        for name, kind in GROUPS.items():
            read_strictly(TypeAdapter(kind), parts[name])
    except UserError as error:
        where = error.where.get("field")
        raise ApiError(400, f"{error.message} {error.remedy}", code=error.code, param=f"{param}.{where}" if where else param) from None
