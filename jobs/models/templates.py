"""The chat template for base models that have none. Free of torch."""

from __future__ import annotations

# Each turn ends with the tokenizer's own end-of-sequence token, so that generation stops there without a new token having to be learnt.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
