"""Export: from images and a model to a bundle."""
