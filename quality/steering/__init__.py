"""Presets: measured like a release; and the search for ones that repair a dimension."""
