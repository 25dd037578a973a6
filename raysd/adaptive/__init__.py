"""Adaptive clones: rounds of generating, training and measuring, in which a classifier says what is generated next."""
