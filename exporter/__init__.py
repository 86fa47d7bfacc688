"""The torch side: load a model, split its units into sub-units, rewrite it, emit ONNX and check that nothing
changed.
"""
