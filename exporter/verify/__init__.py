"""Check that nothing changed: three claims, each with its own numbers, on real, random and far too large inputs."""

from exporter.verify.check import verify
from exporter.verify.file import verify_file
from exporter.verify.report import Comparison, Equivalence, Sums

__all__ = ["Comparison", "Equivalence", "Sums", "verify", "verify_file"]
