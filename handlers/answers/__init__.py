"""Answers: what each operation returns, and its JSON."""
