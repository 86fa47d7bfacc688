"""The embedded default: a small vision transformer with its probing and evaluation images."""
