"""Catalogue entry of full fine-tuning (torch-free)."""

from jobs.methods.entry import Capabilities, Method

FULL = Method(
    id="full",
    name="Full fine-tuning",
    family="full",
    summary=(
        "Trains every parameter of the model. It has the most freedom to learn and costs the most memory: gradients and two "
        "optimiser moments for each parameter. Take it for small models, or where LoRA does not reach the quality you need."
    ),
    paper="",
    application="jobs.methods.full.apply:apply",
    learning_rate=2e-5,
    capabilities=Capabilities(merges=False, adapter=False),
)
