"""The run of a form without the web application: its spec as JSON, as a command, and as Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pprint import pformat

from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from webapp.runs.forms import RunForm

COMMAND = "python -m jobs train spec.json --out out"
_PYTHON = """from pathlib import Path

from jobs.__main__ import main
from jobs.spec import RunSpec, write_spec

spec = RunSpec.from_json({literal})
write_spec(spec, Path("."))  # spec.json
raise SystemExit(main(["train", "spec.json", "--out", "out"]))
"""


@dataclass(frozen=True)
class ShownSpec:
    """The same run in three ways. `model` and the files of `data` are paths that the reader fills in: names stand in their place."""

    json: str
    command: str
    python: str

    @property
    def parts(self) -> list[tuple[str, str, str]]:
        """Name, heading and text of each."""
        return [("json", "spec.json", self.json), ("command", str(_("Command")), self.command), ("python", "Python", self.python)]


def shown_spec(form: RunForm) -> ShownSpec | None:
    """Of a bound form; None where it makes no run."""
    if not form.is_valid():
        return None
    try:
        body = form.recipe().spec().to_json()
    except UserError:
        return None
    return ShownSpec(json.dumps(body, indent=2), COMMAND, _PYTHON.format(literal=pformat(body, width=110, sort_dicts=False)))
