"""Splitting: contribution vectors of a unit, their clusters, and the margin rule that shares its weights among
sub-units.
"""
