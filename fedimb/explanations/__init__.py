"""Why a model says what it says, computed where the rows are: attributions, a surrogate tree, nearest changes.

What leaves a client is an aggregate per class over at least ``floor`` people (`fedimb.explanations.base`).
"""
