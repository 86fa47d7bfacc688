"""How well single factors are followed: class and style of pictures. See docs/benchmarks/factors.md."""
