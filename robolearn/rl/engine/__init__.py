"""The engine beneath the algorithms: gradient steps, compilation, minibatches, two networks side by side."""
