"""Figures of classification and regression as GLUE has them (Wang et al. 2018, arXiv:1804.07461), computed exactly. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def accuracy(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """Share of predictions that are the expected one; None of no row."""
    found, wanted = np.asarray(predicted), np.asarray(expected)
    return float((found == wanted).mean()) if len(wanted) else None


def f1_of(predicted: ArrayLike, expected: ArrayLike, label: int) -> float:
    """2 TP / (2 TP + FP + FN) of one class; 0 where the class is neither predicted nor expected (scikit-learn's rule)."""
    found, wanted = np.asarray(predicted) == label, np.asarray(expected) == label
    both = int((found & wanted).sum())
    total = int(found.sum()) + int(wanted.sum())
    return 2 * both / total if total else 0.0


def f1_macro(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """The mean F1 of the classes that are predicted or expected at least once; None of no row."""
    classes = np.union1d(np.asarray(predicted), np.asarray(expected))
    return float(np.mean([f1_of(predicted, expected, int(label)) for label in classes])) if len(classes) else None


def matthews(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 where either side has one class alone, None of no row."""
    found, wanted = np.asarray(predicted), np.asarray(expected)
    if not len(wanted):
        return None
    classes = np.union1d(found, wanted)
    predicted_counts = np.array([(found == label).sum() for label in classes], dtype=np.float64)
    expected_counts = np.array([(wanted == label).sum() for label in classes], dtype=np.float64)
    rows = float(len(wanted))
    covariance = float((found == wanted).sum()) * rows - predicted_counts @ expected_counts
    spread = (rows**2 - predicted_counts @ predicted_counts) * (rows**2 - expected_counts @ expected_counts)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """Pearson's correlation; None of fewer than two rows, or where one side is constant."""
    found, wanted = np.asarray(predicted, np.float64), np.asarray(expected, np.float64)
    if len(wanted) < 2 or np.ptp(found) == 0 or np.ptp(wanted) == 0:
        return None
    found, wanted = found - found.mean(), wanted - wanted.mean()
    length = np.linalg.norm(found) * np.linalg.norm(wanted)
    return float(np.clip(found @ wanted / length, -1.0, 1.0)) if length > 0 else None


def spearman(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs; None as in `pearson`."""
    return pearson(ranks(predicted), ranks(expected))


def ranks(values: ArrayLike) -> Numbers:
    """float64 [values]: ranks counted from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Numbers = (last - (counts - 1) / 2)[inverse]
    return means


def mean_squared_error(predicted: ArrayLike, expected: ArrayLike) -> float | None:
    """The mean squared difference; None of no row."""
    found, wanted = np.asarray(predicted, np.float64), np.asarray(expected, np.float64)
    return float(((found - wanted) ** 2).mean()) if len(wanted) else None


def classification(predicted: Sequence[int], expected: Sequence[int], classes: int) -> dict[str, float | None]:
    """Accuracy, macro F1 and Matthews' correlation; of two classes besides the F1 of the second one, as GLUE has it."""
    found = {"accuracy": accuracy(predicted, expected), "f1_macro": f1_macro(predicted, expected)}
    if classes == 2:
        found["f1_positive"] = f1_of(predicted, expected, 1) if len(expected) else None
    return found | {"matthews": matthews(predicted, expected)}


def regression(predicted: Sequence[float], expected: Sequence[float]) -> dict[str, float | None]:
    """Pearson's and Spearman's correlation, and the mean squared error."""
    return {
        "pearson": pearson(predicted, expected),
        "spearman": spearman(predicted, expected),
        "mean_squared_error": mean_squared_error(predicted, expected),
    }
