"""The QUBA score, its reference pool, and the comparison of reports."""
