"""One-way synchronisation of an AWS Cognito user pool into a Joget organization."""
