"""Nine quality dimensions, the QUBA score, evaluation suites, the policy, the gate and the reports."""
