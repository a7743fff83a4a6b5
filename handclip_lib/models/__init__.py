"""What is learnt on top of a backbone."""
