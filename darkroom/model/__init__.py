"""The network and its bundle: building, weights, export, and what is stored and served."""
