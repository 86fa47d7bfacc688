"""Names for sub-units, each with the method that found it and its score; what no method can name stays unnamed."""

from elude.exporter.naming.evidence import Name

__all__ = ["Name"]
