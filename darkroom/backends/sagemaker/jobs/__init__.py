"""Managed jobs: started once, followed, their logs and results."""
