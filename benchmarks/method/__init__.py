"""Benchmarks of the method on a real foundation model: a DINOv2 ViT-S/14 and natural images.

See docs/benchmarks/method.md.
"""
