"""Context-aware prompt tuning upon a model: training rows as virtual tokens that may move a little, by PEFT."""

from __future__ import annotations

from typing import Any

import torch

from jobs.errors import UserError
from jobs.methods.prompts.entry import CPT
from jobs.methods.setup import Setup
from jobs.methods.tuning import adapted

# PEFT's kinds of token: example number times four, and one of these. What of an input is template cannot be told from the rows.
INPUT, LABEL = 2, 4


def apply(model: Any, settings: dict[str, Any], setup: Setup) -> Any:
    """The model with some training rows before each row, whose answers stay what they are. Raises `UserError("method_cannot")` where no
    row fits.

    PEFT keeps within the bound by putting another tensor in the place of the trained one at each forward, which an optimiser that holds
    the old one would not see. `CptHooks` does it in place, after each update; here the forward is made to leave the weights alone.
    """
    from peft import CPTConfig

    ids, kinds = examples(setup, int(settings["virtual_tokens"]), int(settings["examples"]))
    if not ids:
        raise UserError(
            "method_cannot", method=CPT.name, reason=f"no training row is as short as {settings['virtual_tokens']} tokens",
            instead="Allow more context tokens, or choose prompt tuning.", where={"field": "method.settings.virtual_tokens"},
        )  # fmt: skip
    bound = settings["bound"]
    config = CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=ids, cpt_mask=[1] * len(ids), cpt_tokens_type_mask=kinds, opt_weighted_loss_type="decay",
        opt_loss_decay_factor=settings["decay"], opt_projection_epsilon=bound, opt_projection_format_epsilon=bound,
    )  # fmt: skip
    prompted = adapted(model, config, setup, method=CPT.id)
    encoder = prompted.prompt_encoder["default"]
    with torch.no_grad():  # through the layer, since some architectures scale what it gives
        embeddings = model.get_input_embeddings()
        encoder.embedding.weight.copy_(embeddings(torch.tensor(ids, device=embeddings.weight.device)))
    encoder.get_projection = lambda: encoder.delta_embedding.weight.data
    return prompted


def examples(setup: Setup, room: int, most: int) -> tuple[list[int], list[int]]:
    """(token ids, PEFT's kinds of token) of at most `most` whole training rows that fit into `room` tokens together, drawn by the seed."""
    order = torch.randperm(len(setup.rows), generator=torch.Generator().manual_seed(setup.seed)).tolist()
    ids: list[int] = []
    kinds: list[int] = []
    count = 0
    for row in (setup.rows[place] for place in order):
        if count < most and len(ids) + len(row.ids) <= room:
            ids += row.ids.tolist()
            kinds += [4 * count + (LABEL if trained else INPUT) for trained in row.trained.tolist()]
            count += 1
    return ids, kinds
