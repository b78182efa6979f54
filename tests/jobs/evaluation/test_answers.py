import pytest

from jobs.evaluation.answers import MAX_LABELS, Labels, exact, labels_of, normalise


def test_comparison_forgives_case_white_space_and_unicode_forms():
    assert normalise("  Straße\n\tNord ") == normalise("STRASSE nord") == "strasse nord"
    assert exact(" Refund_Request\n", "refund_request")
    assert exact("caf\u00e9", "cafe\u0301")
    assert not exact("refund_request.", "refund_request")
    assert not exact("", "refund_request")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("refund", "refund"),
        (" REFUND \n", "refund"),
        ("The intent is: refund.", "refund"),
        ("refund status", "refund status"),
        ("It is about refund status", "refund status"),
        ("refund or delivery", None),
        ("refunds", None),
        ("prerefund", None),
        ("", None),
        ("no idea", None),
    ],
)
def test_an_answer_names_one_label_or_none(answer, label):
    assert Labels(("delivery", "refund", "refund status")).named_in(answer) == label


def test_data_is_classification_like_by_label_or_by_few_short_answers():
    assert labels_of(["a", "b"], ["A ", "b"]) == Labels(("a", "b"))
    assert labels_of(["yes", "No", "YES", "no"], [None] * 4) == Labels(("no", "yes"))
    assert labels_of(["one", "two", "three"], [None] * 3) is None  # each its own answer
    assert labels_of(["word " * 9] * 8, [None] * 8) is None
    many = [str(number) for number in range(MAX_LABELS + 1)] * 3
    assert labels_of(many, [None] * len(many)) is None
    assert labels_of(many[:-3], [None] * (len(many) - 3)) is None
    assert labels_of(["a", "a", "b", "b"], ["a", "a", "b", None]) == Labels(("a", "b"))
    assert labels_of([], []) is None
