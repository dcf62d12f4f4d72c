"""Ways of fine-tuning: from a policy and an environment to a learner, one file each."""
