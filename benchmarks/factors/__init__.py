"""How well single known factors are followed: drawn people whose role, gender, skin tone and style are known. See docs/benchmarks/factors.md."""
