"""The only files that know TorchServe: the handler that travels in the archive, and the server and client that wrap
it.
"""
