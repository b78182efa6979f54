"""Back to the attention that transformers ships, for work that its own code does: generation, and comparison of logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PLAIN = ("sdpa", "eager")


@contextmanager
def plain_inference(model: Any) -> Iterator[Any]:
    """`model` in evaluation mode with a plain attention implementation; both are put back afterwards. Its head reads what is contiguous.

    The packed attention of training knows rows packed into one line and no key-value cache. Models with soft-capped attention
    scores (Gemma 2) get the eager form: SDPA would leave the cap out.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    training, attention = model.training, base.config._attn_implementation
    head = base.get_output_embeddings()
    hook = head.register_forward_pre_hook(_laid_out) if head is not None else None
    if attention not in PLAIN:
        capped = getattr(base.config.get_text_config(), "attn_logit_softcapping", None)
        base.set_attn_implementation("eager" if capped else "sdpa")
    model.eval()
    try:
        yield model
    finally:
        if hook:
            hook.remove()
        if attention not in PLAIN:
            base.set_attn_implementation(attention)
        model.train(training)


def _laid_out(head: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The last positions of several rows are a view with gaps: torch's product with such a view copies the head's weight for each row."""
    del head
    states, *others = given
    return (states.contiguous(), *others)
