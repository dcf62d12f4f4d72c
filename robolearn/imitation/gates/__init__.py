"""Gates: who decides, at each step, whether the policy drives or is corrected."""
