"""Run time: the bundle format, the ONNX session, inspection, steering and the TorchServe shims. Imports no torch."""
