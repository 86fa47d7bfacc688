"""Models: load one by name, find the layers that can be split, and run batches of images through it."""
