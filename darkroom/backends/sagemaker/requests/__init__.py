"""What is sent to AWS: plain dicts from plain values, without a connection."""
