"""Values that several subjects exchange: epochs, tensors, samples of the machine, findings."""
