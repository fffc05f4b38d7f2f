"""The study behind `evaluation.headroom`: what is asked of the live service, what of it is chosen, what it shows."""
