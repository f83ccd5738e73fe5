"""Released files of one project: vae_vampprior."""
