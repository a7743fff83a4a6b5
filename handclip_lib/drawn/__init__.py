"""Hands drawn by a program: people, poses, light, and a data set of them on disk."""
