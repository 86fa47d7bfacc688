"""Check that nothing changed: three claims, each with its own numbers, on real, random and far too large inputs."""

from elude.exporter.verify.check import verify
from elude.exporter.verify.report import Comparison, Equivalence, Sums
from elude.exporter.verify.verify_bundle import verify_file

__all__ = ["Comparison", "Equivalence", "Sums", "verify", "verify_file"]
