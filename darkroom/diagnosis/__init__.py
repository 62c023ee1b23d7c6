"""From a recording to a diagnosis and its report."""
