"""Concepts: sets of sub-units, of whatever unit, that answer to the same images."""
