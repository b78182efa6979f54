import pytest

from jobs.evaluation.answers import MAX_LABELS, exact, labels_of, normalise


def test_comparison_forgives_case_white_space_and_unicode_forms():
    assert normalise("  Straße\n\tNord ") == normalise("STRASSE nord") == "strasse nord"
    assert exact(" Refund_Request\n", "refund_request")
    assert exact("caf\u00e9", "cafe\u0301")
    assert not exact("refund_request.", "refund_request")
    assert not exact("", "refund_request")


def texts(expected, declared=None):
    labels = labels_of(expected, declared or [None] * len(expected))
    return labels and labels.texts


def test_data_is_classification_like_by_label_or_by_few_short_answers():
    assert texts(["a", "b"], ["A ", "b"]) == ("a", "b")
    assert texts(["yes", "No", "YES", "no", "yes"]) == ("No", "yes")  # as most rows write it, the first where as many do
    assert texts(["one", "two", "three"]) is None  # each its own answer
    assert texts(["word " * 9, "other " * 9] * 4) is None
    many = [str(number) for number in range(MAX_LABELS + 1)] * 3
    assert texts(many) is None
    assert len(texts(many, many)) == MAX_LABELS + 1  # declared labels may be as many as they are
    assert len(texts(many[:MAX_LABELS] * 3)) == MAX_LABELS
    assert texts(["a", "a"]) is None  # nothing to tell apart
    assert texts([]) is None


def test_a_label_whose_answers_are_prose_is_no_class_to_choose():
    prose = ["Sure, refund.", "A refund, then.", "To your parcel:", "It is late."]
    assert texts(prose, ["refund", "refund", "parcel", "parcel"]) is None
    assert texts(["Refund!", "Refund!", "Parcel!", "Parcel!"], ["refund", "refund", "parcel", "parcel"]) == ("Parcel!", "Refund!")


def test_a_label_is_found_however_it_is_written():
    labels = labels_of(["yes", "No", "yes", "no"], [None] * 4)
    assert (labels.index(" NO\n"), labels.index("Yes")) == (0, 1)
    with pytest.raises(ValueError, match="maybe"):
        labels.index("maybe")
