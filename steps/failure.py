"""What a run does when one of its components fails."""


def tell_why(exception: BaseException) -> None:
    """Leave the reason where whoever follows the orchestrating job reads it."""
    from darkroom.backends.sagemaker.orchestration import leave_reason

    leave_reason(exception)
