"""The passes over the images, and the report that they end in."""
