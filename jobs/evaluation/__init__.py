"""What a model makes of held-out rows; the same questions for the base model, the tuned one and the merged one."""

from jobs.evaluation.evaluate import LossResult, Question, evaluate

__all__ = ["LossResult", "Question", "evaluate"]
