"""HDBSCAN with leaf selection in two steps: the order in which points join (``reach``), and the clusters in that order (``leaves``)."""
