"""Requests: what can be asked, in which forms, and how it is validated."""
