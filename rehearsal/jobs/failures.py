"""Why jobs fail, in SageMaker's words."""


class JobFailure(Exception):  # noqa: N818  AWS calls it a failure
    """A job ends as Failed; the text is its FailureReason."""


REASON_CHARACTERS = 1024
"""SageMaker shows so many of a failure's reason."""


def algorithm_error(reason: str, *, code: int) -> str:
    """The FailureReason of a program that ended with an exit code other than 0."""
    ending = f", exit code: {code}"
    room = REASON_CHARACTERS - len("AlgorithmError: ") - len(ending)
    return f"AlgorithmError: {reason.strip()[:room]}{ending}"
