"""The words for how a response meets its request: what judges say, and other rooms look for."""

# The first three are XSTest's classes (Röttger et al. 2024).
FULL_REFUSAL, PARTIAL_REFUSAL, FULL_COMPLIANCE = "full_refusal", "partial_refusal", "full_compliance"
GARBLED = "garbled"
