"""How well single factors are followed: drawn people of known role, gender, skin tone and style.

See docs/benchmarks/factors.md.
"""
