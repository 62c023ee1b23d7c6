"""The offline stand-in for AWS: it executes every job really, on this machine."""
