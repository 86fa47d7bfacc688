"""Split an ONNX file that has no PyTorch source: everything is read from its graph and run by ONNX Runtime.

Loads no torch.
"""
