"""Probing: what the layers read and returned on the probing images, collected in one pass."""
