"""What a run does: trains, makes several adapters one, or looks at data before a training. All else of a run is the same for each kind."""

from __future__ import annotations

from django.db import models


class Kind(models.TextChoices):
    """The kind of a run."""

    TRAIN = "train", "Training"
    COMPOSE = "compose", "Composition"
    ANALYSE = "analyse", "Analysis"


# The command of `python -m jobs` that carries it out: `<command> spec.json --out DIR`, with the events and the exit codes of `train`.
COMMANDS: dict[Kind, str] = {Kind.TRAIN: "train", Kind.COMPOSE: "compose", Kind.ANALYSE: "analyse"}
# Those that leave checkpoints to go on from; the others begin anew.
RESUMABLE = frozenset({Kind.TRAIN})
