"""The images a model is measured on: described in a file, read from anywhere, made from a labelled folder."""
