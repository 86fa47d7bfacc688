"""What can be measured: a torch model, an ONNX file, a bundle, a running server, any callable."""
