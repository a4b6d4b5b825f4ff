"""One-way synchronisation of an AWS Cognito user pool into a Joget organization."""

__version__ = "0.1.0"
"""The release. It stands in the ledger that this release writes, and in its staged files."""
