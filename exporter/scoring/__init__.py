"""Scoring: MS-Score, class purity and activity of units and sub-units."""
