"""Endpoints on SageMaker: requests and AWS's rules for them, deployment, clients, roll-back."""
