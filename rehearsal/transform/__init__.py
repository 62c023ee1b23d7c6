"""Transform jobs: a model's container, and every object of a prefix posted to it."""
