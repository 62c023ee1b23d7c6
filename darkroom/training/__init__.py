"""Training: from examples in a cache to the best epoch's weights.

loop            epochs, the best one kept, a checkpoint after each
epochs          one pass over the training images, and its validation
learner         one optimiser step
batches         order, augmentation and normalisation
examples        a split's pixels and labels; pixel_cache: decoded once
optimisation    optimiser, schedule, loss, precision
checkpoints     atomic, without pickle; kept_state: what is kept between epochs
history         what each epoch came to
distributed     several processes; torchrun: starting them
threads         how many compute
program         the `train` program of a container; channels: its input
hyperparameters typed values as SageMaker's strings, and back
"""
