"""Everything about an account that is knowable before a run costs anything."""
