"""The atlas: the catalogue of sub-units, and the static pages that show it."""
