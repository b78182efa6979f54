"""Which files a named model is, for the process that serves: loaded as the run that made it evaluated it."""

from __future__ import annotations

from typing import Any

from jobs.methods.registry import get_method
from jobs.spec import RunSpec
from webapp.api.naming import Named
from webapp.runs.models import Artifact, Run
from webapp.runs.states import State
from webapp.serving.services.ask import Refused


def model_of(named: Named) -> dict[str, Any]:
    """The fields of a `jobs.serving.spec.ModelRef`. Raises `Refused` where there is nothing to ask."""
    base = {"folder": str(named.base.folder.resolve())}
    if named.run is None:
        return base
    if named.step is not None:
        raise Refused("model_not_served", "Checkpoints are not served yet; ask the model when its job has ended.")
    run = named.run
    if run.state != State.SUCCEEDED:
        raise Refused("model_not_ready", "The job of this model has not succeeded yet.")
    spec = RunSpec.from_json(run.spec)
    if spec.task != "causal_lm":
        raise Refused("model_writes_not", "This model was not trained to write.")
    method = get_method(spec.method.id)
    told = {"precision": spec.training.precision}
    if adapter := _newest(run, Artifact.Kind.ADAPTER):
        bits = method.base_bits(method.resolve(dict(spec.method.settings)))
        return {**base, "adapter": str(adapter.file.resolve()), "bits": bits, **told}
    whole = _newest(run, Artifact.Kind.MODEL) or _newest(run, Artifact.Kind.MERGED)
    if whole is None:
        raise Refused("model_not_found", "The weights of this model have been deleted.")
    return {"folder": str(whole.file.resolve()), **told}


def _newest(run: Run, kind: Artifact.Kind) -> Artifact | None:
    return run.artifacts.filter(kind=kind).order_by("-attempt").first()
