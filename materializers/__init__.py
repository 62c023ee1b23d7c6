"""How the artifacts that pass between components are stored and shown."""
