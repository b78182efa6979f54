"""What a model makes of held-out rows; the same questions for the base model, the tuned one and the merged one."""

from jobs.evaluation.evaluate import Question, evaluate, sample, to_sample
from jobs.evaluation.probe import measure_probe
from jobs.evaluation.sums import LossSums

__all__ = ["LossSums", "Question", "evaluate", "measure_probe", "sample", "to_sample"]
