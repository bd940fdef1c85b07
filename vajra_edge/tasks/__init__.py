"""Export, val and predict: what an ML engineer does with weights, without a daemon."""
