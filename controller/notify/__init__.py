"""Calls people: what is worth telling, in which words, and the ways to reach them. It decides nothing about sites."""
