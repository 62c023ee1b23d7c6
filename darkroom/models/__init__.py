"""Architectures and weights, the bundle they are kept in, and the engines that run them."""
