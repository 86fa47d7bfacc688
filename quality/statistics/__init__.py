"""Means, probabilities and confidence intervals."""
