"""Catalogue entry of AdapterFusion (torch-free)."""

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.methods.adapter import Adapter
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import base_bits
from jobs.models.frame import Frame

ADAPTER_FUSION = Method(
    id="adapter_fusion",
    name="AdapterFusion",
    family="adapters",
    summary=(
        "Learns, at each place and for each token, how much to take of several finished bottleneck adapters, which stay as they are: what "
        "was learnt for other tasks serves this one, and nothing of it is forgotten. Take it where there are few rows and adapters of "
        "kindred tasks. It trains three square matrices at each place, many more numbers than the adapters have; with those of placement "
        "pfeiffer half as many. The file holds the fused adapters too; it cannot be merged."
    ),
    paper=("Pfeiffer et al., AdapterFusion: Non-Destructive Task Composition for Transfer Learning, 2020, arXiv:2005.00247"),
    application="jobs.methods.adapter_fusion.apply:apply",
    adapter="jobs.methods.adapter_fusion.entry:plan",
    hooks="jobs.methods.adapter_fusion.hooks:FusionHooks",
    tuner="jobs.methods.adapter_fusion.tuner",
    learning_rate=1e-4,
    settings=(
        Setting(
            "value_penalty",
            "Hold on the values",
            "float",
            0.01,
            "How strongly the value matrices are held near the identity, with which they begin, so that the adapters keep their meaning. 0 "
            "leaves them free; 0.01 is usual.",
            0,
            10,
        ),
        base_bits(16, 8, 4),
    ),
    capabilities=Capabilities(bases=(16, 8, 4), merges=False, adapters=2, adapters_of=("bottleneck_adapter", "parallel_adapter")),
)


def plan(settings: Mapping[str, Any], frame: Frame, finished: Sequence[Mapping[str, Any]]) -> Adapter:
    """Query, key and value at each place where the `finished` adapters stand, by their configs; unknown where there are none yet."""
    del settings
    places = set(finished[0].get("target_modules") or ()) if finished else set()
    layers = tuple(layer for layer in frame.layers if layer.name in places)
    weights = {f"{layer.name}.{kind}": (layer.outputs, layer.outputs) for layer in layers for kind in ("query", "key", "value")}
    return Adapter(weights, layers, unknown="" if weights else "it hangs on the adapters that are fused")
