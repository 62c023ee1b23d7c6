"""Keys of disks, and the machines that take none."""

import re

_LOCAL_STORAGE = re.compile(r"ml\.([a-z]+\d+[a-z]*d[a-z]*|g5|g6|g6e|p5|p5e|trn1)\.")
"""Instances with disks of their own, encrypted by hardware: AWS refuses a KMS key for them.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
"""


def volume_key(instance_type: str, *, key: str) -> str:
    """The key where the disks of such a machine take one; else, and where there is none, empty."""
    return "" if has_own_disks(instance_type) else key


def has_own_disks(instance_type: str) -> bool:
    """Whether a machine has disks of its own, whose size nobody chooses."""
    return bool(_LOCAL_STORAGE.match(instance_type))
