"""What each jump contributes to diffusion."""
