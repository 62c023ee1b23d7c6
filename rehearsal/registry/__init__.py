"""What moto lacks of the model registry and of lineage."""
