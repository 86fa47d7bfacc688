"""What a release has to prove."""
