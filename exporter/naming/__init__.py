"""Names for sub-units, each with the method that found it and its score; what no method can name stays unnamed."""

from exporter.naming.found import Name

__all__ = ["Name"]
