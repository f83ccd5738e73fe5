"""Training modes: LightningModules that have a model, and what stands beside them in a training."""
