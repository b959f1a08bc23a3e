"""What a jump costs: reference saddle searches, their store, and a learned model."""
