"""What a base model and a run's rows say of the rank and the bits that suit them, measured before the training.

`subject` opens both as a run does, `sketch` holds the mathematics of one layer, `spectrum` runs it over all layers, `bits` measures what
quantisation costs, `ranks` (free of torch) makes suggestions of the figures, `report` puts all together.
"""
