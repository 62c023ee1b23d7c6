"""s3://bucket/key, apart and together."""


def split_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of s3://bucket/key. Raises ValueError where it is no such URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError(f"{uri!r} is no s3:// URI")
    return bucket, key
