"""The paper's items (Bershatsky et al. 2022, https://arxiv.org/abs/2201.13195) and its reviewers'
questions.
"""
