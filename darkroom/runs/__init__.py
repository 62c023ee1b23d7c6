"""What a run came to: for machines, a versioned JSON file; for people, a table."""
