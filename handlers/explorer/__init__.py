"""The explorer: a small web page on a bundle or on a running server."""
