"""The `serve` program of a container: SageMaker's HTTP contract, without torch."""
