"""Training as a managed job."""
