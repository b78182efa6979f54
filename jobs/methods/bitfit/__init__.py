"""BitFit: the biases that a model has, and nothing else, are trained."""
