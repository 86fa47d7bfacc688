"""Images: from untrusted bytes to the input of the model."""
