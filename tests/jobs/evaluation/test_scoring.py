"""Labels and choices by likelihood: which ids are scored, and who wins."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jobs.data.encoding import encode_records, place_of_answer
from jobs.evaluation.answers import Labels
from jobs.evaluation.candidates import in_place
from jobs.evaluation.likelihood import Asked
from jobs.evaluation.scoring import Choice, ChoiceScore, choice_score, label_accuracy, tally
from jobs.models.templates import FALLBACK_TEMPLATE
from tests.tiny import CHATML, tiny_tokenizer

CHAT = {"messages": [{"role": "user", "content": "my money"}, {"role": "assistant", "content": "refund"}]}
PAIR = {"prompt": "Sky:", "completion": " blue", "choices": ["red", "blue"]}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def words(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def asked(record, answers, tokenizer, *, closed):
    return in_place(place_of_answer(record, tokenizer), answers, tokenizer, closed=closed)


@pytest.mark.parametrize("template", [CHATML, FALLBACK_TEMPLATE], ids=["ChatML", "our own"])
def test_a_label_in_a_chat_has_the_ids_of_training_with_its_end_of_turn(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    found = asked(CHAT, ["refund", "delivery"], tokenizer, closed=True)
    trained = encode_records([CHAT], tokenizer).rows[0]
    assert [*found.prompt, *found.continuations[0]] == trained.ids[: trained.trained.nonzero()[0][-1] + 1].tolist()
    assert found.continuations[0] == trained.ids[trained.trained].tolist()
    assert words(tokenizer, found.continuations[1]) == "delivery<|im_end|>"


def test_a_completion_keeps_its_white_space_and_ends_as_in_training(tokenizer):
    found = asked(PAIR, ["red", "blue"], tokenizer, closed=True)
    trained = encode_records([PAIR], tokenizer).rows[0]
    assert [*found.prompt, *found.continuations[1]] == trained.ids.tolist()
    assert words(tokenizer, found.prompt) == "Sky: "
    assert [words(tokenizer, ids) for ids in found.continuations] == ["red<|im_end|>", "blue<|im_end|>"]
    opened = asked(PAIR, ["red", "blue"], tokenizer, closed=False)
    assert [words(tokenizer, ids) for ids in opened.continuations] == ["red", "blue"]


def test_only_the_last_answer_of_a_chat_is_asked(tokenizer):
    chat = {"messages": [*CHAT["messages"], {"role": "user", "content": "again"}, CHAT["messages"][1], {"role": "user", "content": "?"}]}
    found = asked(chat, ["refund", "x"], tokenizer, closed=True)
    assert words(tokenizer, found.prompt).endswith("again<|im_end|>\n<|im_start|>assistant\n")


def test_where_the_tokenizer_joins_prompt_and_answer_both_count_as_the_answers():
    """ ": b" is one token here: the prompt ends before the colon, for every answer alike."""
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), ":b", ":r"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "b"), (":", "r")]))
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    record = {"prompt": "Sky:", "completion": "blue"}
    found = asked(record, ["blue", "red", "green"], tokenizer, closed=False)
    assert tokenizer.convert_ids_to_tokens(found.prompt) == ["S", "k", "y"]
    assert [tokenizer.convert_ids_to_tokens(ids)[0] for ids in found.continuations] == [":b", ":r", ":"]


def test_an_answer_that_begins_another_keeps_a_token_of_its_own(tokenizer):
    found = asked(CHAT, ["re", "refund"], tokenizer, closed=False)
    assert [len(ids) for ids in found.continuations] == [2, 6]


def test_nothing_before_the_answer_is_nothing_to_ask(tokenizer):
    assert asked({"prompt": "", "completion": "blue"}, ["blue", "red"], tokenizer, closed=False) is None


def test_plain_text_and_rewritten_answers_have_no_place():
    tokenizer = tiny_tokenizer()
    assert place_of_answer({"text": "words"}, tokenizer) is None
    tokenizer.chat_template = "{% for m in messages %}{% generation %}{{ m['content'] | upper }}{% endgeneration %}{% endfor %}"
    assert place_of_answer({"messages": CHAT["messages"][1:]}, tokenizer) is None


def test_raw_and_per_character_may_differ_and_a_tie_goes_to_the_first():
    one = Asked([1], [[2], [3]])
    long_is_right, short_is_right = Choice(one, 1, [2, 11]), Choice(one, 0, [2, 11])
    score = tally([long_is_right, short_is_right], [[-4.0, -5.0], [-4.0, -5.0]])
    assert score == ChoiceScore(asked=2, right=1, right_normalised=1)
    assert tally([long_is_right], [[-4.0, -5.0]]) == ChoiceScore(1, 0, 1)
    assert tally([long_is_right], [[-4.0, -30.0]]) == ChoiceScore(1, 0, 0)
    assert tally([Choice(one, 1, [1, 1])], [[-2.0, -2.0]]).accuracy == 0.0
    assert (score.accuracy, score.accuracy_normalised) == (0.5, 0.5)
    assert (tally([], []).accuracy, tally([], []).accuracy_normalised) == (None, None)


def test_rows_that_cannot_be_asked_are_not_measured(tokenizer):
    assert label_accuracy(None, tokenizer, [{"text": "words"}], Labels(("delivery", "refund"))) is None
    assert choice_score(None, tokenizer, [CHAT]) == ChoiceScore(0, 0, 0)


def test_a_model_that_prefers_a_short_beginning_does_not_win_with_it(tokenizer):
    """The real model: behind "refund" it expects " status", so that ending there is unlikely, and the longer label wins."""

    class Writes(torch.nn.Module):
        """Knows one answer by heart: after each byte of it, the next has nearly all the probability."""

        def __init__(self, ids):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.next = dict(pairwise(ids))
            self.config = type("Config", (), {"vocab_size": 258, "_attn_implementation": "sdpa", "get_text_config": lambda self: self})()
            self.dtype = torch.float32

        def get_output_embeddings(self):
            return None

        def forward(self, input_ids, **_):
            logits = torch.zeros(*input_ids.shape, 258)
            for row, column in torch.cartesian_prod(*(torch.arange(size) for size in input_ids.shape)).tolist():
                following = self.next.get(int(input_ids[row, column]))
                if following is not None:
                    logits[row, column, following] = 9.0
            return type("Output", (), {"logits": logits})()

    model = Writes(tokenizer("\nab cd<|im_end|>")["input_ids"])
    labels = Labels(("ab", "ab cd"))
    records = [{"messages": [CHAT["messages"][0], {"role": "assistant", "content": "ab cd"}]}]
    assert label_accuracy(model, tokenizer, records, labels) == 1.0
    assert choice_score(model, tokenizer, [{**records[0], "choices": ["ab", "ab cd"]}]).accuracy == 0.0
