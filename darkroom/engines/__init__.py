"""What runs a bundle's network: one file an engine, all behind one Protocol."""
