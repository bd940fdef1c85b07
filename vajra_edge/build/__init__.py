"""A request to a plan in the store: the build child, the precision fallback, the accuracy check."""
