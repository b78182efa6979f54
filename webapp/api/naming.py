"""What models are called in the API, and which one a name means.

- a base model: its repository on the Hub (`HuggingFaceTB/SmolLM2-135M-Instruct`), else its name on the pages without what no id has
  (`My model` is `My-model`). Of several that are called alike the team's own comes first, then the newest; `{name}@{8 digits of its id}`
  always means that one.
- a run: `ft:{base}:{team}:{suffix}:{run}`, and `...:ckpt-step-{n}` for one of its checkpoints. The run's id alone decides; the words before
  it are for people, so a team or a model that gets another name does not make old names useless.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import Http404

from webapp.accounts.access import Person
from webapp.accounts.models import Team
from webapp.api.errors import ApiError
from webapp.catalog.access import models_of
from webapp.catalog.models import BaseModel
from webapp.runs.access import get_run
from webapp.runs.models import Run

_UNFIT = re.compile(r"[^A-Za-z0-9._/-]+")
_TUNED = re.compile(r"ft:[^:]+:[^:]+:[^:]*:(?P<run>[0-9a-f]{32})(?::ckpt-step-(?P<step>[0-9]{1,9}))?")
_EXACT = re.compile(r"(?P<name>.+)@(?P<id>[0-9a-f]{8})")


@dataclass(frozen=True)
class Named:
    """What a name means: a base model; or what a run made of it, as a whole or (`step`) at a checkpoint. `name` is as it was asked."""

    name: str
    base: BaseModel
    run: Run | None = None
    step: int | None = None


def name_of_base(base: BaseModel) -> str:
    """The id of a base model, without `@`: two may have the same (`exact_name_of_base`)."""
    return base.repository or _fit(base.name) or base.pk.hex


def exact_name_of_base(base: BaseModel) -> str:
    """The id that means this base model and no other of its name."""
    return f"{name_of_base(base)}@{base.pk.hex[:8]}"


def name_of_run(run: Run) -> str:
    """The id of the model that a run makes or made. Needs `run.base_model` and `run.team`."""
    return f"ft:{name_of_base(run.base_model)}:{run.team.slug}:{suffix_of(run)}:{run.pk.hex}"


def name_of_checkpoint(run: Run, step: int) -> str:
    """The id of the model as it stood after so many steps."""
    return f"{name_of_run(run)}:ckpt-step-{step}"


def suffix_of(run: Run) -> str:
    """The suffix that the job asked for; of a run that was launched on the pages its name, as an id can say it."""
    job: Any = getattr(run, "job", None)
    return str(job.suffix or "") if job is not None else _fit(run.name).replace("/", "-").lower()[:64]


def names_of_bases(user: Person, team: Team) -> list[tuple[str, BaseModel]]:
    """The ready base models that the team may ask by name, each with the id that means it: the plain one for the first of a name."""
    taken: set[str] = set()
    found = []
    for base in models_of(user, team):
        if base.state == BaseModel.State.READY:
            name = name_of_base(base)
            found.append((exact_name_of_base(base) if name in taken else name, base))
            taken.add(name)
    return found


def find(user: Person, team: Team, name: str) -> Named:
    """What the name means to somebody in the team. Raises `ApiError` 404 `model_not_found`, also for what is another team's."""
    if name.startswith("ft:"):
        return _tuned(user, team, name)
    exact = _EXACT.fullmatch(name)
    for known, base in names_of_bases(user, team):
        if name == known or (exact and base.pk.hex.startswith(exact["id"]) and name_of_base(base) == exact["name"]):
            return Named(name, base)
    raise not_found(name)


def not_found(name: str) -> ApiError:
    """The refusal of a name, in OpenAI's words."""
    return ApiError(404, f"The model '{name[:200]}' does not exist or you do not have access to it.", code="model_not_found", param="model")


def _tuned(user: Person, team: Team, name: str) -> Named:
    match = _TUNED.fullmatch(name)
    if match is None:
        raise not_found(name)
    try:
        run = get_run(user, UUID(match["run"]), "view")
    except Http404:
        raise not_found(name) from None
    if run.team_id != team.pk:
        raise not_found(name)
    return Named(name, run.base_model, run, int(match["step"]) if match["step"] else None)


def _fit(name: str) -> str:
    return _UNFIT.sub("-", name).strip("-/.")
