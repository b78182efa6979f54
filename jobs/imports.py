"""What a run loads before its first step, and no more.

Importing makes hundreds of thousands of objects that all stay, so the collector of cyclic garbage only costs time meanwhile (0.5 s of
4). PEFT imports bitsandbytes wherever it is installed, which compiles its fallbacks with inductor (1.2 s) and asks CUDA for every
device's capability: only runs that use it load it.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

from jobs.methods.entry import Method
from jobs.spec import RunSpec

_ENGINE = (
    "jobs.run",
    "jobs.tasks.causal_lm",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)


def import_engine(*, peft: bool) -> None:
    """Imports all that is common to every run, which touches no GPU; and PEFT where asked, which may (see `leave_out_bitsandbytes`)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in (*_ENGINE, *(("peft",) if peft else ())):
            import_module(name)
    finally:
        if was_enabled:
            gc.enable()
    gc.freeze()


def leave_out_bitsandbytes(spec: RunSpec, method: Method) -> bool:
    """Makes bitsandbytes look absent to this process where the run has no use for it; says whether it did. Raises `UserError`."""
    bits = method.base_bits(method.resolve(dict(spec.method.settings)))
    wanted = bits < 16 or any(word in spec.training.optimiser for word in ("8bit", "paged"))
    if wanted or "bitsandbytes" in sys.modules:
        return False
    hide_bitsandbytes()
    return True


def hide_bitsandbytes() -> None:
    """Makes bitsandbytes, not imported so far, look absent to this process.

    `None` in `sys.modules` is Python's own way to say so: libraries that look for it do without, and an import fails with its name.
    """
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
