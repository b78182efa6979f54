"""Catalogue entry of AdapterFusion (torch-free)."""

from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import base_bits

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
