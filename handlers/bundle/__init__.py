"""The bundle: one folder with a manifest that hashes each file, its catalogue, and the ONNX session."""
