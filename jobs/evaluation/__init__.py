"""What a model makes of held-out rows; the same questions for the base model, the tuned one and the merged one."""

from jobs.evaluation.evaluate import LossSums, Question, evaluate

__all__ = ["LossSums", "Question", "evaluate"]
