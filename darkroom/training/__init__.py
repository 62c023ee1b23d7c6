"""Training: from examples in a cache to the best epoch's weights.

loop                epochs and their validation, the best one kept, a checkpoint after each
learner             one optimiser step: network, optimiser, schedule, loss, precision
batches             order, augmentation and normalisation; shares of several processes
examples            a split's pixels and labels, decoded once
checkpoints         atomic, without pickle; checkpoint_manager: what is kept between epochs
distributed         several processes
requirements        what a training is going to need, found out before
program             the `train` program of a container; channels: its folders and its input
hyperparameters     typed values as SageMaker's strings, and back
"""
