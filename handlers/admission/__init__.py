"""May this bundle be served? Requirements, signatures, and checks while it is served."""
