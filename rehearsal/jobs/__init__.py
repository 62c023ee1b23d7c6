"""What SageMaker would run on machines of its own, run here as processes in sandboxes."""
