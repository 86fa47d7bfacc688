"""Images to probe and to judge with: a fixed sequence from wherever they lie. Loads no torch."""

from elude.exporter.images.address import open_images
from elude.exporter.images.source import SUFFIXES, Entry, Example, ImageSource

__all__ = ["SUFFIXES", "Entry", "Example", "ImageSource", "open_images"]
