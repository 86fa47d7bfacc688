"""Check that nothing changed: three claims, each with its own numbers, on real, random and far too large inputs."""

from elude.exporter.verify.report import Comparison, Equivalence, Sums

__all__ = ["Comparison", "Equivalence", "Sums"]
