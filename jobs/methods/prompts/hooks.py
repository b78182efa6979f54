"""What prompts need between the steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jobs.methods.hooks import Hooks, Reset


class PromptHooks(Hooks):
    """Weight decay leaves virtual tokens alone: they are places among the words, and none of their numbers means "no change"."""

    def decays(self, weight: str) -> bool:
        """All but the virtual tokens: P-tuning's network may shrink."""
        return not weight.endswith("embedding.weight")


class CptHooks(PromptHooks):
    """Blau et al. 2024, arXiv:2410.17222: the answers in the context are learnt too, and no token leaves the ball around what it was."""

    def penalty(self) -> Tensor:
        """The mean cross-entropy of the tokens of the context's answers, float32 [], those of an example `decay` times that of the next.

        They see nothing but the context before them, so one forward of the context alone gives what each row would.
        """
        config = self.model.active_peft_config
        kinds, ids = torch.tensor(config.cpt_tokens_type_mask)[1:], torch.tensor(config.cpt_token_ids)[1:]
        places = torch.nonzero(kinds % 4 == 0)[:, 0]
        distance = (kinds.max() + 3) // 4 - kinds[places] // 4 + 1  # the last example is next to the row that is asked
        base = self.model.get_base_model()
        prompt = self.model.get_prompt(batch_size=1).to(base.get_input_embeddings().weight.dtype)
        logits = base(inputs_embeds=prompt, use_cache=False).logits[0, :-1]
        losses = functional.cross_entropy(logits[places].float(), ids[places].to(logits.device), reduction="none")
        weights = torch.tensor(config.opt_loss_decay_factor) ** distance
        return (losses * weights.to(losses)).mean()

    @torch.no_grad()
    def after_update(self, step: int, reset: Reset) -> None:
        """Brings each token back into its ball, in place."""
        encoder = self.model.prompt_encoder["default"]
        encoder.delta_embedding.weight.copy_(type(encoder).get_projection(encoder))
