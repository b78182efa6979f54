"""Which tokens are trained on, for every kind of row; and that prompt and training agree."""

from __future__ import annotations

import random

import pytest

from jobs.data import encoding
from jobs.data.encoding import encode_records, expected_answer, prompt_ids_for_generation, require_labels
from jobs.errors import UserError
from jobs.models.templates import FALLBACK_TEMPLATE
from tests.tiny import CHATML, tiny_tokenizer

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye?"},
        {"role": "assistant", "content": "Bye!"},
    ]
}
GENERATION = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + eos_token }}"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Drops what an earlier answer thought, as templates of reasoning models do: the chat up to an answer is no prefix of the whole.
THINKING = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' and loop.last %}(thought){% endif %}{{ m['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def trained_text(record, tokenizer, **options):
    """The runs of trained tokens, as text."""
    row = encode_records([record], tokenizer, **options).rows[0]
    runs, current = [], []
    for token, trained in zip([*row.ids.tolist(), 0], [*row.trained.tolist(), False], strict=True):
        if trained:
            current.append(token)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return runs


def test_a_chat_is_trained_on_its_answers_and_their_end(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert trained_text(CHAT, tokenizer) == ["Hi.<|im_end|>", "Bye!<|im_end|>"]


def test_an_answer_of_weight_0_is_not_trained_on(tokenizer):
    chat = {"messages": [{**message, "weight": 0} if message["content"] == "Hi." else message for message in CHAT["messages"]]}
    assert trained_text(chat, tokenizer) == ["Bye!<|im_end|>"]


def test_the_template_s_own_marks_are_taken(tokenizer):
    own = tiny_tokenizer()
    own.chat_template = GENERATION
    assert trained_text(CHAT, own) == ["Hi.<|im_end|>", "Bye!<|im_end|>"]
    chat = {"messages": [{**message, "weight": 0} if message["content"] == "Hi." else message for message in CHAT["messages"]]}
    assert trained_text(chat, own) == ["Bye!<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns(tokenizer):
    own = tiny_tokenizer()
    own.chat_template = THINKING
    assert trained_text(CHAT, own) == ["Hi.", "(thought)Bye!</s>"]


def test_the_fallback_template_ends_turns_with_the_end_token(tokenizer):
    own = tiny_tokenizer()
    own.chat_template = FALLBACK_TEMPLATE
    assert trained_text(CHAT, own) == ["Hi.<|im_end|>", "Bye!<|im_end|>"]


def test_a_chat_that_starts_with_an_answer(tokenizer):
    assert trained_text({"messages": CHAT["messages"][2:]}, tokenizer) == ["Hi.", "Bye!<|im_end|>"]


@pytest.mark.parametrize(
    ("record", "loss_on", "expected"),
    [
        ({"prompt": "Q: ", "completion": "A"}, "completion", ["A<|im_end|>"]),
        ({"prompt": "", "completion": "AB"}, "completion", ["B<|im_end|>"]),
        ({"prompt": "Q: ", "completion": "A"}, "all", [": A<|im_end|>"]),
        ({"text": "abc"}, "completion", ["bc<|im_end|>"]),
    ],
)
def test_completions_and_text(record, loss_on, expected, tokenizer):
    assert trained_text(record, tokenizer, loss_on=loss_on) == expected


def test_everything_is_trained_on_when_asked(tokenizer):
    row = encode_records([CHAT], tokenizer, loss_on="all").rows[0]
    assert row.trained.tolist() == [False] + [True] * (len(row.ids) - 1)


def test_the_prompt_of_a_generation_is_the_row_up_to_its_answer(tokenizer):
    for record, answer in ((CHAT, "Bye!"), ({"prompt": "Q: ", "completion": "A"}, "A")):
        ids = encode_records([record], tokenizer).rows[0].ids.tolist()
        prompt = prompt_ids_for_generation(record, tokenizer)
        assert ids[: len(prompt)] == prompt
        assert tokenizer.decode(ids[len(prompt) :]).startswith(answer)
        assert expected_answer(record) == answer


def test_there_is_no_prompt_without_an_answer(tokenizer):
    for record in ({"text": "abc"}, {"messages": CHAT["messages"][:2]}):
        assert prompt_ids_for_generation(record, tokenizer) is None
        assert expected_answer(record) is None


def test_long_rows_are_cut_and_empty_ones_left_out(tokenizer):
    records = [{"prompt": "x" * 30, "completion": "y"}, {"prompt": "x", "completion": "y" * 30}, {"text": "z"}]
    encoded = encode_records(records, tokenizer, max_length=16)
    assert (encoded.cut, encoded.dropped, encoded.indices, encoded.max_length) == (2, 1, [1, 2], 16)
    assert [len(row.ids) for row in encoded.rows] == [16, 2]
    assert encoded.label_tokens == 15 + 1


def test_the_length_found_is_the_99th_percentile_rounded_up(tokenizer):
    records = [{"text": "x" * 99}] * 300 + [{"text": "x" * 1000}] * 2
    encoded = encode_records(records, tokenizer)
    assert (encoded.max_length, encoded.cut) == (128, 2)
    assert encode_records(records, tokenizer, length_limit=50).max_length == 50


def test_nothing_left_to_learn(tokenizer):
    encoded = encode_records([{"prompt": "x" * 30, "completion": "y"}], tokenizer, max_length=8)
    with pytest.raises(UserError) as refused:
        require_labels(encoded)
    assert refused.value.code == "nothing_to_learn"
    assert "8 tokens" in refused.value.message


def test_a_template_that_refuses_names_the_row(tokenizer):
    own = tiny_tokenizer()
    own.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match=r"Row 1: .*roles must alternate") as refused:
        encode_records([CHAT], own)
    assert refused.value.where == {"row": 1}


def test_mixed_rows_keep_their_order(tokenizer):
    records = [{"text": "one"}, CHAT, {"prompt": "two", "completion": "three"}]
    apart = [encode_records([record], tokenizer, max_length=200).rows[0].ids.tolist() for record in records]
    assert [row.ids.tolist() for row in encode_records(records, tokenizer, max_length=200).rows] == apart


SYSTEM_PREFIX = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML
TRIMMING = CHATML.replace("message['content']", "message['content'] | trim")
WORDS = ("Hi.", " Hi. \n", "", "<|im_end|>", "<|im_start|>assistant\n", "assistant", "é ✓ 🙂", "a\nb")


@pytest.mark.parametrize("template", [CHATML, SYSTEM_PREFIX, TRIMMING, FALLBACK_TEMPLATE, THINKING])
def test_spans_from_one_text_are_those_found_by_rendering_each_prefix(template, tokenizer):
    """Many chats, awkward answers among them: where `_framed_spans` answers at all, it answers as `_prefix_spans` does."""
    own = tiny_tokenizer()
    own.chat_template = template
    generator, found = random.Random(0), 0  # noqa: S311
    frame = encoding._frame_of(own)
    assert (frame is None) == (template is THINKING)
    for _ in range(300 if frame else 0):
        roles = generator.choice((["user", "assistant"], ["system", "user", "assistant"] * 2, ["user", "assistant", "user"], ["assistant"]))
        chat = [{"role": role, "content": generator.choice(WORDS)} for role in roles]
        text = encoding._apply_template(chat, own)
        spans = encoding._framed_spans(chat, text, frame)
        if spans is not None:
            found += 1
            assert spans == encoding._prefix_spans(chat, text, own), chat
    assert found > 50 or not frame


def test_a_tokenizer_that_cuts_and_pads_by_its_own_file_does_neither_here():
    own = tiny_tokenizer()
    own.backend_tokenizer.enable_truncation(4)
    own.backend_tokenizer.enable_padding(length=64)
    rows = encode_records([{"text": "x" * 30}, {"text": "x"}], own).rows
    assert [len(row.ids) for row in rows] == [31, 2]


def test_rows_are_what_the_tokenizer_itself_makes_of_them(tokenizer):
    records = [{"prompt": f"é🙂 {number}", "completion": " ✓" * (number % 7 + 1)} for number in range(1200)]
    rows = encode_records(records, tokenizer).rows
    for record, row in zip(records, rows, strict=True):
        assert row.ids.tolist() == [*tokenizer(record["prompt"] + record["completion"])["input_ids"], tokenizer.eos_token_id]
